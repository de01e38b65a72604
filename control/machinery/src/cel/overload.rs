//! What a function is: a name, the types it takes and gives, what it costs, what it does.

use super::cost::Cost;
use super::fault::Evaluated;
use super::types::Type;
use super::value::Value;

/// A type in a signature.
#[derive(Clone, Debug)]
pub(super) enum Sig {
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Time,
    Duration,
    Type,
    List(Box<Sig>),
    Map(Box<Sig>, Box<Sig>),
    Optional(Box<Sig>),
    Named(&'static str),
    /// Any type, the same throughout.
    A,
    B,
    /// `A` that has an order.
    Ordered,
}

/// What a function does with values of its signature's types.
pub(super) type Body = fn(&[Value]) -> Evaluated;

/// A function with one signature.
#[derive(Clone, Debug)]
pub(super) struct Overload {
    pub(super) name: &'static str,
    /// Called on its first argument.
    pub(super) member: bool,
    pub(super) args: Vec<Sig>,
    pub(super) gives: Sig,
    pub(super) cost: Cost,
    pub(super) body: Body,
}

pub(super) fn global(name: &'static str, args: Vec<Sig>, gives: Sig, cost: Cost, body: Body) -> Overload {
    Overload { name, member: false, args, gives, cost, body }
}

/// `args[0].name(args[1..])`
pub(super) fn member(name: &'static str, args: Vec<Sig>, gives: Sig, cost: Cost, body: Body) -> Overload {
    Overload { name, member: true, args, gives, cost, body }
}

pub(super) fn list(of: Sig) -> Sig {
    Sig::List(Box::new(of))
}

pub(super) fn optional(of: Sig) -> Sig {
    Sig::Optional(Box::new(of))
}

/// A body from patterns over its arguments.
macro_rules! body {
    ($($args:pat => $value:expr),+ $(,)?) => {
        |args: &[Value]| match args {
            $($args => $value,)+
            _ => $crate::cel::fault::no_overload(),
        }
    };
}
pub(super) use body;

fn is_ordered(kind: &Type) -> bool {
    kind.is_number()
        || matches!(
            kind,
            Type::Bool
                | Type::Text(_)
                | Type::Bytes(_)
                | Type::Time(_)
                | Type::Duration
                | Type::Dyn
                | Type::Any(_)
                | Type::Free
        )
}

impl Sig {
    /// Whether a value of a type may stand here; what `A` and `B` are is written down.
    fn takes(&self, kind: &Type, bound: &mut [Option<Type>; 2]) -> bool {
        match (self, kind) {
            (Sig::A | Sig::Ordered, kind) => {
                let fits = match self {
                    Sig::Ordered => is_ordered(kind),
                    _ => true,
                };
                fits && bind(&mut bound[0], kind)
            }
            (Sig::B, kind) => bind(&mut bound[1], kind),
            (_, Type::Dyn | Type::Any(_) | Type::Free) | (Sig::Dyn, _) => true,
            (Sig::Bool, Type::Bool)
            | (Sig::Int, Type::Int)
            | (Sig::Uint, Type::Uint)
            | (Sig::Double, Type::Double)
            | (Sig::Text, Type::Text(_))
            | (Sig::Bytes, Type::Bytes(_))
            | (Sig::Time, Type::Time(_))
            | (Sig::Duration, Type::Duration)
            | (Sig::Type, Type::Type) => true,
            (Sig::List(of), Type::List(item, _)) => of.takes(item, bound),
            (Sig::Map(key, value), Type::Map(k, v, _)) => key.takes(k, bound) && value.takes(v, bound),
            (Sig::Optional(of), Type::Optional(inner)) => of.takes(inner, bound),
            (Sig::Named(name), Type::Named(of)) => name == of,
            _ => false,
        }
    }

    fn made(&self, bound: &[Option<Type>; 2]) -> Type {
        match self {
            Sig::Dyn => Type::Dyn,
            Sig::Bool => Type::Bool,
            Sig::Int => Type::Int,
            Sig::Uint => Type::Uint,
            Sig::Double => Type::Double,
            Sig::Text => Type::text(),
            Sig::Bytes => Type::Bytes(super::types::UNBOUNDED),
            Sig::Time => Type::time(),
            Sig::Duration => Type::Duration,
            Sig::Type => Type::Type,
            Sig::List(of) => Type::list(of.made(bound)),
            Sig::Map(key, value) => {
                let size = super::types::UNBOUNDED;
                Type::Map(Box::new(key.made(bound)), Box::new(value.made(bound)), size)
            }
            Sig::Optional(of) => Type::Optional(Box::new(of.made(bound))),
            Sig::Named(name) => Type::Named(name),
            Sig::A | Sig::Ordered => bound[0].clone().unwrap_or(Type::Free),
            Sig::B => bound[1].clone().unwrap_or(Type::Free),
        }
    }

    /// Whether a value may stand here. Items are not looked at.
    fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Sig::Dyn | Sig::A | Sig::B, _)
            | (Sig::Bool, Value::Bool(_))
            | (Sig::Int, Value::Int(_))
            | (Sig::Uint, Value::Uint(_))
            | (Sig::Double, Value::Double(_))
            | (Sig::Text, Value::Text(_))
            | (Sig::Bytes, Value::Bytes(_))
            | (Sig::Time, Value::Time(_))
            | (Sig::Duration, Value::Duration(_))
            | (Sig::Type, Value::Type(_))
            | (Sig::List(_), Value::List(_))
            | (Sig::Map(..), Value::Map(_))
            | (Sig::Optional(_), Value::Optional(_))
            | (Sig::Ordered, _) => true,
            (Sig::Named(name), value) => value.type_name() == *name,
            _ => false,
        }
    }
}

fn bind(place: &mut Option<Type>, kind: &Type) -> bool {
    match place {
        None => {
            *place = Some(kind.clone());
            true
        }
        Some(known) if known.fits(kind) => {
            *known = known.join(kind);
            true
        }
        Some(_) => false,
    }
}

impl Overload {
    /// The type of a call's value; none where these arguments do not fit.
    pub(super) fn result(&self, args: &[&Type]) -> Option<Type> {
        let mut bound = [None, None];
        let fits = self.args.len() == args.len()
            && self.args.iter().zip(args).all(|(sig, kind)| sig.takes(kind, &mut bound));
        fits.then(|| self.gives.made(&bound))
    }

    /// Whether it may be called with these values.
    pub(super) fn accepts(&self, args: &[Value]) -> bool {
        self.args.len() == args.len() && self.args.iter().zip(args).all(|(sig, value)| sig.holds(value))
    }
}
