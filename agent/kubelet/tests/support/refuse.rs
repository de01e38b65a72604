//! A fake of a CRI service implements what its test needs, and refuses the rest.

/// Methods a fake lacks, spelled as `async_trait` spells them: it runs before this macro does.
macro_rules! refuse {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        $(fn $name<'a, 'b>(
            &'a self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        })*
    };
}
