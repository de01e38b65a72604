//! The few checks that most fields must pass. Those that say so give whether the value passed.

use super::cursor::Cursor;
use crate::{names, schema::Format};

pub(super) const IMMUTABLE: &str = "field is immutable";
pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

impl<'v> Cursor<'v> {
    /// Something must be there.
    pub(super) fn required(self) -> bool {
        self.required_with("")
    }

    pub(super) fn required_with(self, detail: &str) -> bool {
        let empty = self.is_empty();
        if empty {
            self.missing(detail);
        }
        !empty
    }

    /// One error for each message about the text.
    pub(super) fn format(self, format: Format) -> bool {
        self.format_of(self.str(), format)
    }

    /// One error for each message about a text that stands for the one there.
    pub(super) fn format_of(self, text: &str, format: Format) -> bool {
        let messages = format(text);
        let fits = messages.is_empty();
        messages.into_iter().for_each(|message| self.invalid_value(text, message));
        fits
    }

    /// One error for all messages about a text.
    pub(super) fn format_at_once(self, text: &str, format: Format, between: &str) -> bool {
        let messages = format(text);
        if !messages.is_empty() {
            self.invalid_value(text, messages.join(between));
        }
        messages.is_empty()
    }

    /// A text of a format must be there.
    pub(super) fn required_format(self, format: Format) -> bool {
        self.required() && self.format(format)
    }

    /// The format of a text that may be left out.
    pub(super) fn optional_format(self, format: Format) {
        if !self.is_empty() || (self.is_pointer() && self.is_set()) {
            self.format(format);
        }
    }

    pub(super) fn label(self) -> bool {
        self.format(names::dns1123_label)
    }

    pub(super) fn subdomain(self) -> bool {
        self.format(names::dns1123_subdomain)
    }

    pub(super) fn qualified(self) -> bool {
        self.format(names::qualified_name)
    }

    /// A name that can stand in a URL's path.
    pub(super) fn segment(self) -> bool {
        self.required_format(names::path_segment)
    }

    /// The name of a CSI driver, in any case.
    pub(super) fn driver_name(self) {
        if self.required() {
            self.bounded(63);
            self.format_of(self.str(), |name| names::dns1123_subdomain(&name.to_lowercase()));
        }
    }

    /// No longer than so many bytes.
    pub(super) fn bounded(self, max: usize) {
        if self.str().len() > max {
            self.too_long(max);
        }
    }

    pub(super) fn not_negative(self) {
        if self.number().is_some_and(|number| number < 0) {
            self.invalid(NOT_NEGATIVE);
        }
    }

    /// Several counts of one object.
    pub(super) fn not_negatives(self, names: &[&'v str]) {
        names.iter().for_each(|name| self.field(name).not_negative());
    }

    /// One of some values, where there is one.
    pub(super) fn one_of(self, supported: &[&str]) {
        if (!self.is_empty() || (self.is_pointer() && self.is_set())) && !supported.contains(&self.str()) {
            self.unsupported(supported);
        }
    }

    /// One of some values, and nothing is none of them.
    pub(super) fn supported(self, supported: &[&str]) {
        if !supported.contains(&self.str()) {
            self.unsupported(supported);
        }
    }

    pub(super) fn immutable(self) {
        if self.changed() {
            self.invalid(IMMUTABLE);
        }
    }

    pub(super) fn port_number(self) {
        let messages = names::port_number(self.number().unwrap_or_default());
        messages.into_iter().for_each(|message| self.invalid(message));
    }

    /// A port by number or by name.
    pub(super) fn port(self) {
        if self.value.is_string() {
            self.format(names::port_name);
        } else {
            let number = self.number().unwrap_or_default();
            names::port_number(number).into_iter().for_each(|message| self.invalid_value(number, message));
        }
    }

    /// A count or a percentage, not negative.
    pub(super) fn count_or_percent(self) {
        if self.value.is_string() {
            self.format(names::percent);
        } else {
            self.not_negative();
        }
    }

    fn percent(self) -> Option<i64> {
        self.str().strip_suffix('%')?.parse().ok()
    }

    pub(super) fn not_over_100_percent(self) {
        if self.percent().is_some_and(|percent| percent > 100) {
            self.invalid("must not be greater than 100%");
        }
    }

    /// Whether a count or percentage is nothing.
    pub(super) fn is_zero(self) -> bool {
        match self.value.is_string() {
            true => self.percent() == Some(0),
            false => self.number().unwrap_or_default() == 0,
        }
    }

    /// A path below something: relative, and not upwards.
    pub(super) fn descending(self) {
        if self.str().starts_with('/') {
            self.invalid("must be a relative path");
        }
        self.no_backsteps();
    }

    pub(super) fn no_backsteps(self) {
        if self.str().split('/').any(|part| part == "..") {
            self.invalid("must not contain '..'");
        }
    }

    /// A path below a domain, as `example.com/controller`.
    pub(super) fn domain_path(self) {
        if self.required() {
            names::domain_path(self.str()).into_iter().for_each(|(part, why)| self.invalid_value(part, why));
        }
    }

    /// A service account token lives ten minutes at least.
    pub(super) fn token_seconds(self) {
        match self.number() {
            Some(..600) => self.invalid("may not specify a duration less than 10 minutes"),
            Some(0x1_0000_0001..) => self.invalid("may not specify a duration larger than 2^32 seconds"),
            _ => {}
        }
    }

    /// Labels: keys are qualified names, values label values. Upstream leaves the key out of the paths of both.
    pub(super) fn labels(self) {
        for (key, entry) in self.entries() {
            self.format_of(key, names::qualified_name);
            self.format_of(entry.str(), names::label_value);
        }
    }
}
