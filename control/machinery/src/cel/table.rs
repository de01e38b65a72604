//! All functions: what is checked, evaluated and paid for is read from here alone.

use super::library;
use super::overload::Overload;
use std::collections::HashMap;
use std::sync::LazyLock;

static TABLE: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut table: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for overload in library::all() {
        table.entry(overload.name).or_default().push(overload);
    }
    table
});

/// The functions of a name, called on a value or not.
pub(super) fn named(name: &str, member: bool) -> impl Iterator<Item = &'static Overload> {
    TABLE.get(name).into_iter().flatten().filter(move |o| o.member == member)
}

/// Whether there is a function of a name that is not called on a value: `optional.of`.
pub(super) fn is_global(name: &str) -> bool {
    named(name, false).next().is_some()
}
