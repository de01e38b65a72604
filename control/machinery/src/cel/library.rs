//! The functions there are, by where they come from.

mod authz;
mod conversions;
mod formats;
pub(super) mod json_patches;
mod lists;
mod net;
mod operators;
mod optionals;
pub(super) mod patterns;
pub(super) mod printf;
mod quantities;
mod texts;
mod times;
mod urls;
mod versions;

use super::overload::Overload;

pub(super) fn all() -> Vec<Overload> {
    [
        operators::all(),
        conversions::all(),
        times::all(),
        texts::all(),
        patterns::all(),
        lists::all(),
        optionals::all(),
        quantities::all(),
        net::all(),
        urls::all(),
        versions::all(),
        formats::all(),
        authz::all(),
        json_patches::all(),
    ]
    .concat()
}
