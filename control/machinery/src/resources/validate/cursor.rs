//! Where validation stands in an object: the value there, what it was before an update, and its path, which is only
//! written out for an error.

use std::{cell::RefCell, iter::zip};

use serde_json::Value;

use crate::{
    access::{Fields, Get as _, same},
    field::{ErrorType, FieldError, Path},
    schema::{self, Constraints, Field, Shape, TypeId},
};

/// What was found wrong so far, and the steps that were taken from the object downwards.
#[derive(Default)]
struct Report<'v> {
    prefix: Path,
    update: bool,
    /// Each step, behind the place (counted from one) that it was taken from.
    steps: RefCell<Vec<(u32, Step<'v>)>>,
    errors: RefCell<Vec<FieldError>>,
}

#[derive(Clone, Copy)]
enum Step<'v> {
    Field(&'v str),
    Item(usize),
    Key(&'v str),
}

/// A place in an object that is validated.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'v> {
    report: &'v Report<'v>,
    /// Its step; 0 is the object itself.
    place: u32,
    pub(super) value: &'v Value,
    /// Null in a new object, and for items of lists.
    pub(super) old: &'v Value,
    /// The structure here, or in the list or map here.
    kind: Option<TypeId>,
    /// What the field table says of it.
    field: Option<&'static Field>,
}

const NULL: &Value = &Value::Null;
/// How many steps there is room for at first: what a small object takes.
const STEPS: usize = 128;

/// Looks at an object of a type; `old` is what it is to replace, or nothing for a new one.
pub(super) fn look(
    kind: Option<TypeId>,
    object: &Value,
    old: Option<&Value>,
    check: impl for<'a> FnOnce(Cursor<'a>),
) -> Vec<FieldError> {
    let steps = RefCell::new(Vec::with_capacity(STEPS));
    let report = Report { update: old.is_some(), steps, ..Report::default() };
    check(Cursor { report: &report, place: 0, value: object, old: old.unwrap_or(NULL), kind, field: None });
    report.errors.take()
}

/// Looks at a value that is no built-in object, at a path of its own.
pub(super) fn look_at(
    path: &Path,
    value: &Value,
    errors: &mut Vec<FieldError>,
    check: impl for<'a> FnOnce(Cursor<'a>),
) {
    let report = Report { prefix: path.clone(), ..Report::default() };
    check(Cursor { report: &report, place: 0, value, old: NULL, kind: None, field: None });
    errors.extend(report.errors.take());
}

impl<'v> Cursor<'v> {
    fn step(self, parent: u32, step: Step<'v>) -> Self {
        let mut steps = self.report.steps.borrow_mut();
        steps.push((parent, step));
        Cursor { place: u32::try_from(steps.len()).unwrap_or_default(), ..self }
    }

    /// The field at a dotted path.
    pub(super) fn field(self, path: &'v str) -> Self {
        let mut there = self;
        for name in path.split('.') {
            there.field = there.kind.and_then(|id| schema::builtin().field(id, name));
            there.kind = there.field.and_then(Field::struct_type);
            there.value = there.value.get(name).unwrap_or(NULL);
            there.old = there.old.get(name).unwrap_or(NULL);
        }
        there.step(self.place, Step::Field(path))
    }

    /// The same value by another name, where upstream's path does not follow the field's.
    pub(super) fn named(self, name: &'v str) -> Self {
        let own = (self.place as usize).checked_sub(1);
        let parent = own.and_then(|own| self.report.steps.borrow().get(own).map(|(parent, _)| *parent));
        self.step(parent.unwrap_or_default(), Step::Field(name))
    }

    /// The same value at another place, where upstream's path says less than there is.
    pub(super) fn reported_at(self, other: Self) -> Self {
        Cursor { place: other.place, ..self }
    }

    /// An item of a list.
    pub(super) fn item(self, index: usize) -> Self {
        let value = self.value.get(index).unwrap_or(NULL);
        Cursor { value, old: NULL, ..self }.step(self.place, Step::Item(index))
    }

    pub(super) fn items(self) -> impl ExactSizeIterator<Item = Self> + DoubleEndedIterator {
        (0..self.values().len()).map(move |index| self.item(index))
    }

    /// The items of a list that is a field.
    pub(super) fn each(self, path: &'v str) -> impl ExactSizeIterator<Item = Self> + DoubleEndedIterator {
        self.field(path).items()
    }

    /// An entry of a map.
    pub(super) fn key(self, key: &'v str) -> Self {
        let value = self.value.get(key).unwrap_or(NULL);
        Cursor { value, old: self.old.get(key).unwrap_or(NULL), ..self }.step(self.place, Step::Key(key))
    }

    /// The map itself, at the path of a child that may not be one of the field table.
    pub(super) fn field_named(self, name: &'v str) -> Self {
        self.step(self.place, Step::Field(name))
    }

    /// The map itself, at the path of an entry.
    pub(super) fn key_named(self, key: &'v str) -> Self {
        self.step(self.place, Step::Key(key))
    }

    /// The entries of a map.
    pub(super) fn entries(self) -> impl Iterator<Item = (&'v str, Self)> {
        self.value
            .as_object()
            .into_iter()
            .flat_map(Fields::keys)
            .map(move |key| (key.as_str(), self.key(key)))
    }

    /// Looks at another value as if it stood here, with what stood here before.
    pub(super) fn over<R>(self, value: &Value, check: impl for<'a> FnOnce(Cursor<'a>) -> R) -> R {
        let report = Report { prefix: self.path(), update: self.report.update, ..Report::default() };
        let Cursor { old, kind, field, .. } = self;
        let result = check(Cursor { report: &report, place: 0, value, old, kind, field });
        self.report.errors.borrow_mut().extend(report.errors.take());
        result
    }

    /// Whether a check finds nothing wrong with what stood here before.
    pub(super) fn was_fine(self, check: impl for<'a> FnOnce(Cursor<'a>)) -> bool {
        let Cursor { old: value, kind, field, .. } = self;
        let report = Report::default();
        check(Cursor { report: &report, place: 0, value, old: NULL, kind, field });
        report.errors.take().is_empty()
    }

    pub(super) fn path(self) -> Path {
        let steps = self.report.steps.borrow();
        let (mut trail, mut place) = (Vec::new(), self.place);
        while let Some((parent, step)) = (place as usize).checked_sub(1).and_then(|at| steps.get(at)) {
            trail.push(*step);
            place = *parent;
        }
        let mut path = self.report.prefix.as_str().to_owned();
        for step in trail.into_iter().rev() {
            match step {
                Step::Field(name) => {
                    path.push_str(if path.is_empty() { "" } else { "." });
                    path.push_str(name);
                }
                Step::Item(index) => path.push_str(&format!("[{index}]")),
                Step::Key(key) => path.extend(["[", key, "]"]),
            }
        }
        Path::new(path)
    }

    pub(super) fn is_update(self) -> bool {
        self.report.update
    }

    pub(super) fn constraints(self) -> Option<&'static Constraints> {
        self.field?.constraints.as_deref()
    }

    pub(super) fn is_pointer(self) -> bool {
        self.field.is_some_and(|field| field.pointer)
    }

    pub(super) fn struct_type(self) -> Option<TypeId> {
        self.kind
    }
}

#[cfg(test)]
impl<'v> Cursor<'v> {
    /// The same value, as if it were this field's.
    pub(super) fn of_field(self, field: &'static Field) -> Self {
        Cursor { field: Some(field), kind: field.struct_type(), ..self }
    }
}

/// What stands there, and below it. Absent, null and ill-typed read as the zero value.
impl<'v> Cursor<'v> {
    pub(super) fn at(self, path: &str) -> &'v Value {
        self.value.at(path)
    }

    pub(super) fn text(self, path: &str) -> &'v str {
        self.at(path).as_str().unwrap_or_default()
    }

    pub(super) fn int(self, path: &str) -> i64 {
        self.at(path).as_i64().unwrap_or_default()
    }

    pub(super) fn flag(self, path: &str) -> bool {
        self.at(path) == &Value::Bool(true)
    }

    pub(super) fn list(self, path: &str) -> &'v [Value] {
        self.at(path).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn map(self, path: &str) -> Option<&'v Fields> {
        self.at(path).as_object()
    }

    pub(super) fn has(self, path: &str) -> bool {
        !self.at(path).is_null()
    }

    pub(super) fn annotation(self, key: &str) -> Option<&'v str> {
        self.map("metadata.annotations")?.get(key)?.as_str()
    }

    pub(super) fn str(self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    pub(super) fn number(self) -> Option<i64> {
        self.value.as_i64()
    }

    pub(super) fn values(self) -> &'v [Value] {
        self.value.as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// The strings of a list.
    pub(super) fn strs(self) -> Vec<&'v str> {
        self.values().iter().filter_map(Value::as_str).collect()
    }

    /// The strings the list had before.
    pub(super) fn old_strs(self) -> Vec<&'v str> {
        self.old.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    pub(super) fn is_set(self) -> bool {
        !self.value.is_null()
    }

    /// Itself where there is a value.
    pub(super) fn if_set(self) -> Option<Self> {
        self.is_set().then_some(self)
    }

    /// Whether nothing is there, or an empty text, list or map.
    pub(super) fn is_empty(self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => {
                fields.is_empty() && !self.is_of(|shape| matches!(shape, Shape::Struct(_)))
            }
            _ => self.is_of(|shape| *shape == Shape::String),
        }
    }

    fn is_of(self, shape: impl Fn(&Shape) -> bool) -> bool {
        self.field.is_some_and(|field| shape(&field.shape))
    }

    /// Whether it differs from what was there before.
    pub(super) fn changed(self) -> bool {
        !same(self.value, self.old)
    }

    /// Whether two lists' items are alike one by one, as far as both go.
    pub(super) fn pairs(self) -> impl Iterator<Item = (&'v Value, &'v Value)> {
        zip(self.values(), self.old.as_array().into_iter().flatten())
    }
}

/// What is wrong with it.
impl<'v> Cursor<'v> {
    fn report(self, error: FieldError) {
        self.report.errors.borrow_mut().push(error);
    }

    /// Errors that were found elsewhere.
    pub(super) fn add(self, errors: Vec<FieldError>) {
        self.report.errors.borrow_mut().extend(errors);
    }

    /// How many errors there are so far.
    pub(super) fn errors(self) -> usize {
        self.report.errors.borrow().len()
    }

    /// Forgets what was found so far.
    pub(super) fn forget(self) {
        self.report.errors.borrow_mut().clear();
    }

    /// The value as upstream prints it: absent text, numbers and truths are empty, zero and false unless they are pointers.
    fn shown(self) -> Value {
        match (self.value, self.field) {
            (Value::Null, Some(field)) if !field.pointer => match field.shape {
                Shape::String => Value::from(""),
                Shape::Int32 | Shape::Int64 => Value::from(0),
                Shape::Bool => Value::from(false),
                _ => Value::Null,
            },
            (value, _) => value.clone(),
        }
    }

    pub(super) fn missing(self, detail: impl Into<String>) {
        self.report(FieldError::required(&self.path(), detail));
    }

    pub(super) fn invalid(self, detail: impl Into<String>) {
        self.invalid_value(self.shown(), detail);
    }

    /// Invalid, with another value shown than the one that is there.
    pub(super) fn invalid_value(self, value: impl Into<Value>, detail: impl Into<String>) {
        self.report(FieldError::invalid(&self.path(), value, detail));
    }

    /// Invalid, without a value.
    pub(super) fn invalid_unshown(self, detail: impl Into<String>) {
        let error = FieldError::invalid(&self.path(), Value::Null, detail);
        self.report(FieldError { bad_value: None, ..error });
    }

    pub(super) fn internal(self, error: &dyn std::fmt::Display) {
        self.report(FieldError::internal(&self.path(), error));
    }

    pub(super) fn forbidden(self, detail: impl Into<String>) {
        self.report(FieldError::forbidden(&self.path(), detail));
    }

    pub(super) fn unsupported(self, supported: &[&str]) {
        self.unsupported_value(self.shown(), supported);
    }

    pub(super) fn unsupported_value(self, value: impl Into<Value>, supported: &[&str]) {
        self.report(FieldError::not_supported(&self.path(), value, supported));
    }

    /// Values upstream lists in an order of its own.
    pub(super) fn unsupported_as_listed(self, supported: &[&str]) {
        self.report(FieldError::not_supported_as_listed(&self.path(), self.shown(), supported));
    }

    pub(super) fn duplicate(self) {
        self.duplicate_value(self.shown(), "");
    }

    pub(super) fn duplicate_value(self, value: impl Into<Value>, detail: &str) {
        self.report(FieldError::new(ErrorType::Duplicate, &self.path(), value, detail));
    }

    pub(super) fn not_found(self) {
        self.not_found_value(self.shown(), "");
    }

    pub(super) fn not_found_value(self, value: impl Into<Value>, detail: &str) {
        self.report(FieldError::new(ErrorType::NotFound, &self.path(), value, detail));
    }

    /// Longer than so many bytes.
    pub(super) fn too_long(self, max: usize) {
        self.report(FieldError::too_long(&self.path(), max));
    }

    /// More items than there may be.
    pub(super) fn too_many(self, count: usize, max: usize) {
        self.report(FieldError::too_many(&self.path(), count, max));
    }
}
