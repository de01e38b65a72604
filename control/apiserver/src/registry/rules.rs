//! What objects of a kind must be and become: one interface, whether the kind is built in or a definition made it.
//!
//! Which of the two it is, [`Kind::rules`](super::kind::Kind::rules) asks, and nobody else.

mod builtin;
mod custom;
mod signing_request;
mod tls_pair;
mod versions;

pub(crate) use builtin::Builtin;
pub(crate) use custom::Custom;
pub(crate) use versions::Answers;

use jiff::Timestamp;
use machinery::apply::managed::Managed;
use machinery::apply::versions::Halt;
use machinery::apply::{Applied, Write};
use machinery::cel::Type;
use machinery::field::FieldError;
use serde_json::Value;

/// Where an object says how many of it there are: paths of its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scaling {
    /// How many are wanted.
    pub wanted: String,
    /// How many there are.
    pub present: String,
    pub selects: Selects,
}

/// Where an object says which pods are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selects {
    /// Nowhere.
    Nothing,
    /// There, as a text.
    Text(String),
    /// In `spec.selector`, as a label selector or a map.
    Labels,
}

/// What a write finds, as ownership sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned<'a> {
    /// The object, without its owners.
    pub live: &'a Value,
    /// Its owners.
    pub present: &'a Managed,
    pub write: &'a Write<'a>,
}

/// The rules of one served version of a resource.
pub(crate) trait Rules: Send + Sync {
    /// True where stored bytes are what this version's clients get.
    fn is_storage(&self) -> bool;

    /// Turns an object of the stored version into one of the client's.
    fn to_client(&self, object: &mut Value);

    /// Turns an object of the client's version into one of the stored version.
    fn to_storage(&self, object: &mut Value);

    /// Brings what [`Rules::to_storage`] gave to the version objects have between decoding and the store.
    fn to_flight(&self, object: &mut Value);

    /// The canonical form of an object, and the fields its schema does not have.
    ///
    /// # Errors
    /// For a value of the wrong type, in the words of Go's decoder.
    fn normalize(&self, object: Value) -> Result<(Value, Vec<String>), String>;

    /// The canonical form of an object into which a configuration was merged: what is null in it and may not be is left to validation.
    ///
    /// # Errors
    /// As [`Rules::normalize`].
    fn normalize_applied(&self, object: Value) -> Result<Value, String>;

    /// Why nothing new may be created now.
    fn closed(&self) -> Option<&'static str>;

    /// How it is scaled; none where it is not.
    fn scaling(&self) -> Option<Scaling>;

    /// What its objects look like to expressions; none where nobody says.
    fn object_type(&self) -> Option<Type>;

    /// Whether it has a protobuf form.
    fn has_protobuf(&self) -> bool;

    /// Fills in what the client left out.
    fn default(&self, object: &mut Value);

    /// Gives it what it shares with its template, where it has none of that; true where it does.
    fn share(&self, object: &mut Value) -> bool;

    /// Both, as whenever an object is read.
    fn complete(&self, object: &mut Value) {
        self.default(object);
        self.share(object);
    }

    /// Makes of a valid object what reading it back from the store would give.
    fn read_back(&self, object: &mut Value);

    /// Makes a new object what objects of its kind start as; gives what its author is to know of what was brought into another form.
    fn prepare_create(&self, object: &mut Value) -> Vec<String>;

    /// Carries over what this write may not change.
    fn prepare_update(&self, subresource: &str, new: &mut Value, old: &Value);

    /// What is wrong with a new object.
    fn validate_create(&self, object: &Value) -> Vec<FieldError>;

    /// What is wrong with a change.
    fn validate_update(&self, subresource: &str, new: &Value, old: &Value) -> Vec<FieldError>;

    /// What an author should know of an object that is accepted all the same, through this subresource (the object itself where empty).
    fn warnings(&self, subresource: &str, object: &Value, old: Option<&Value>) -> Vec<String>;

    /// The fields a write of this subresource (the object itself where empty) resets.
    fn reset_fields(&self, subresource: &str) -> &'static [&'static str];

    /// May a PUT create it?
    fn creates_on_update(&self) -> bool;

    /// May a PUT name no resourceVersion?
    fn unconditional_update(&self) -> bool;

    /// The columns of its table.
    fn columns(&self) -> Value;

    fn row(&self, object: &Value, now: Timestamp) -> Value;

    /// What clients of this version are warned of.
    fn deprecation(&self) -> Option<String>;

    /// What a new object is compared with to find what its author owns.
    fn zero(&self, object: &Value) -> Value;

    /// Why a configuration cannot be applied: fields that are declared nowhere, what its lists name twice, or not at all.
    fn untypable(&self, config: &Value) -> Vec<String>;

    /// The owners after the write made `new` of what is there; none where the kind has no schema.
    ///
    /// # Errors
    /// What `answers` do not say of other versions.
    fn owners(&self, of: Owned<'_>, new: &Value, answers: &Answers) -> Result<Option<Managed>, Halt>;

    /// `config` applied over what is there.
    ///
    /// # Errors
    /// 409 for what others own; what `answers` do not say of other versions.
    fn apply(&self, of: Owned<'_>, config: &Value, answers: &Answers) -> Result<Applied, Halt>;
}
