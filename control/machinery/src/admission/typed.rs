//! What an expression does wrong with objects of a known kind (upstream: `policy/validating/typechecking.go`).

use super::environment::{Variables, composed, fixed, variables_type};
use crate::cel::authorizer::AUTHORIZER_TYPE;
use crate::cel::{Environment, Program, Type};

/// What a policy's expressions may name, where its objects are of one kind.
#[derive(Clone, Debug)]
pub struct Typed {
    variables: Vec<(&'static str, Type)>,
}

impl Typed {
    /// `params`: the parameters' type, where the policy has any; `variables`: names and expressions.
    pub fn new<'p>(
        object: &Type,
        params: Option<Type>,
        variables: impl IntoIterator<Item = (&'p str, &'p str)>,
    ) -> Self {
        let mut known = vec![("object", object.clone()), ("oldObject", object.clone())];
        known.extend(fixed());
        known.extend(params.map(|kind| ("params", kind)));
        // As upstream, which declares no `authorizer.requestResource` here.
        known.push(("authorizer", AUTHORIZER_TYPE));
        let mut fields = Variables::new();
        let mut typed = Typed { variables: known };
        typed.variables.push(("variables", variables_type(&fields)));
        for (name, source) in variables {
            let kind = typed.compile(source).map_or(Type::Dyn, |kind| composed(&kind));
            fields.insert(name.to_owned(), kind);
            typed.variables.pop();
            typed.variables.push(("variables", variables_type(&fields)));
        }
        typed
    }

    fn compile(&self, source: &str) -> Result<Type, String> {
        let environment = Environment::of(&self.variables);
        Program::compile(source, &environment)
            .map(|(_, estimate)| estimate.kind)
            .map_err(|problems| problems.to_string())
    }

    /// What is wrong with an expression, as cel-go prints it.
    #[must_use]
    pub fn problems(&self, source: &str) -> Option<String> {
        self.compile(source).err()
    }
}
