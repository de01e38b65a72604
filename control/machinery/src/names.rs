//! What may be called what: DNS labels and subdomains, label keys and values, path segments, generated names.
//!
//! Each check returns upstream's messages, none for a valid name.

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_MSG: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                         and must start and end with an alphanumeric character";
const SUBDOMAIN_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_MSG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
                             '-' or '.', and must start and end with an alphanumeric character";
const WILDCARD_MSG: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, \
                            which must consist of lower case alphanumeric characters, '-' or '.' and end with an \
                            alphanumeric character";
const DNS1035_FMT: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const DNS1035_MSG: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                           alphabetic character, and end with an alphanumeric character";
const KEY_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const KEY_MSG: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                       alphanumeric character";
const VALUE_FMT: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const VALUE_MSG: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                         '.', and must start and end with an alphanumeric character";

/// Longest DNS label, label value and name part of a label key, in bytes.
pub(crate) const LABEL_MAX: usize = 63;
/// Longest DNS subdomain, in bytes.
pub(crate) const SUBDOMAIN_MAX: usize = 253;
/// What generated names are made of: no vowels, no look-alikes.
pub(crate) const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LEN: usize = 5;

/// `must be no more than N characters`.
#[must_use]
pub(crate) fn max_len_error(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// `MSG (e.g. 'a',  or 'b', regex used for validation is 'FMT')`.
#[must_use]
pub(crate) fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

/// `must be between LO and HI, inclusive`.
#[must_use]
pub(crate) fn range_error(lo: i64, hi: i64) -> String {
    format!("must be between {lo} and {hi}, inclusive")
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `inner` bytes all through, `edge` bytes at both ends.
fn framed(s: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    match s.as_bytes() {
        [] => false,
        [only] => edge(*only),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|b| inner(*b)),
    }
}

fn is_label(s: &str) -> bool {
    framed(s, lower_alnum, |b| lower_alnum(b) || b == b'-')
}

fn is_subdomain(s: &str) -> bool {
    s.split('.').all(is_label)
}

fn is_key(s: &str) -> bool {
    framed(s, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn too_long(value: &str, max: usize) -> Vec<String> {
    if value.len() > max { vec![max_len_error(max)] } else { Vec::new() }
}

/// The same, as keys and values of labels have it: in another unit than names, which are counted alike.
fn too_many_bytes(value: &str, max: usize) -> Option<String> {
    (value.len() > max).then(|| format!("must be no more than {max} bytes"))
}

/// A DNS-1123 label: `my-name`, `123-abc`.
#[must_use]
pub(crate) fn dns1123_label(value: &str) -> Vec<String> {
    let mut errors = too_long(value, LABEL_MAX);
    if !is_label(value) {
        errors.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex_error(LABEL_MSG, LABEL_FMT, &["my-name", "123-abc"])
        });
    }
    errors
}

/// A DNS-1123 subdomain: `example.com`. The name of most objects.
#[must_use]
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = too_long(value, SUBDOMAIN_MAX);
    errors.extend(subdomain_fault(value));
    errors
}

/// The same in the words of what upstream declares with its types (`k8s-long-name`): the names of few kinds, and the domains of label keys.
#[must_use]
pub(crate) fn long_name(value: &str) -> Vec<String> {
    too_many_bytes(value, SUBDOMAIN_MAX).into_iter().chain(subdomain_fault(value)).collect()
}

fn subdomain_fault(value: &str) -> Option<String> {
    (!is_subdomain(value)).then(|| regex_error(SUBDOMAIN_MSG, SUBDOMAIN_FMT, &["example.com"]))
}

/// What is wrong with a path below a domain, as `example.com/controller`: the part, and why.
#[must_use]
pub fn domain_path(value: &str) -> Vec<(&str, String)> {
    let parts = value.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty());
    let Some((host, rest)) = parts else {
        return vec![(value, "must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned())];
    };
    let mut wrong: Vec<_> = dns1123_subdomain(host).into_iter().map(|why| (host, why)).collect();
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        wrong.push((rest, regex_error("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[])));
    }
    wrong
}

/// `*.example.com`.
#[must_use]
pub(crate) fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = too_long(value, SUBDOMAIN_MAX);
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        errors.push(regex_error(WILDCARD_MSG, &format!("\\*\\.{SUBDOMAIN_FMT}"), &["*.example.com"]));
    }
    errors
}

/// A DNS-1035 label: as DNS-1123, but starting with a letter.
#[must_use]
pub(crate) fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = too_long(value, LABEL_MAX);
    if !is_label(value) || value.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        errors.push(regex_error(DNS1035_MSG, DNS1035_FMT, &["my-name", "abc-123"]));
    }
    errors
}

/// A qualified name, which is what a label key is: `example.com/MyName` or `MyName`.
#[must_use]
pub fn qualified_name(value: &str) -> Vec<String> {
    const EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = value.split('/').collect();
    let mut errors = Vec::new();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(long_name(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_error(KEY_MSG, KEY_FMT, &EXAMPLES)
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else {
        errors.extend(too_many_bytes(name, LABEL_MAX).map(|e| format!("name part {e}")));
    }
    if !is_key(name) {
        errors.push(format!("name part {}", regex_error(KEY_MSG, KEY_FMT, &EXAMPLES)));
    }
    errors
}

/// A label's value, possibly empty.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors: Vec<String> = too_many_bytes(value, LABEL_MAX).into_iter().collect();
    if !value.is_empty() && !is_key(value) {
        errors.push(regex_error(VALUE_MSG, VALUE_FMT, &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// A name that may stand in a URL path: not `.`, not `..`, no `/`, no `%`.
#[must_use]
pub(crate) fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// A port's name (RFC 6335): at most 15 of `a-z0-9-`, a letter among them, hyphens only singly and inside.
#[must_use]
pub(crate) fn port_name(value: &str) -> Vec<String> {
    let mut errors = too_long(value, 15);
    let bytes = value.as_bytes();
    if bytes.is_empty() || !bytes.iter().all(|b| lower_alnum(*b) || *b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !bytes.iter().any(u8::is_ascii_lowercase) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// A port number, 1 to 65535.
#[must_use]
pub(crate) fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![range_error(1, 65535)] }
}

fn parent_directory(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// A key of a ConfigMap or Secret.
#[must_use]
pub(crate) fn config_map_key(value: &str) -> Vec<String> {
    let mut errors = too_long(value, SUBDOMAIN_MAX);
    let valid = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.is_empty() || !value.as_bytes().iter().all(valid) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    errors.extend(parent_directory(value));
    errors
}

/// An environment variable's name as pods may use it: printable ASCII other than `=`.
#[must_use]
pub(crate) fn env_var_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.is_empty() {
        errors.push("environment variable name must be non-empty".to_owned());
    }
    if !value.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        errors.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned(),
        );
    }
    errors
}

/// A whole number in its one form: `-12`, no `+12`, no `012`.
#[must_use]
pub(crate) fn decimal_integer(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["must be non-empty".to_owned()];
    }
    let digits = value.strip_prefix('-').unwrap_or(value);
    let plain =
        digits.starts_with(|c: char| ('1'..='9').contains(&c)) && digits.bytes().all(|b| b.is_ascii_digit());
    if plain || value == "0" {
        return Vec::new();
    }
    vec!["must be a valid decimal integer in canonical form".to_owned()]
}

/// The name of an HTTP header.
#[must_use]
pub(crate) fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// `93%`.
#[must_use]
pub(crate) fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// The prefix with a trailing dash replaced by a letter, so that it may be checked as a whole name.
#[must_use]
pub(crate) fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(head) if !head.is_empty() => format!("{head}a"),
        _ => prefix.to_owned(),
    }
}

/// A name from `metadata.generateName`: at most 58 bytes of it and five random characters, 63 in all.
#[must_use]
pub fn generate_name(prefix: &str, mut random: u64) -> String {
    let mut end = prefix.len().min(LABEL_MAX - SUFFIX_LEN);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    let base = SUFFIX_ALPHABET.len() as u64;
    for _ in 0..SUFFIX_LEN {
        name.push(char::from(SUFFIX_ALPHABET[(random % base) as usize]));
        random /= base;
    }
    name
}

/// Versions by maturity, then number (upstream: `CompareKubeAwareVersionStrings`): `v2` over `v1` over `v1beta2` over `v1alpha1`
/// over anything of another form, which compares by its text turned round.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> std::cmp::Ordering {
    match (version_rank(a), version_rank(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => std::cmp::Ordering::Greater,
        (None, Some(_)) => std::cmp::Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// Maturity (2: stable, 1: beta, 0: alpha), major, minor.
fn version_rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, tail) = rest.split_at(end);
    let number = |text: &str| text.parse().ok().filter(|_| !text.starts_with('0'));
    let major = number(major)?;
    match tail {
        "" => Some((2, major, 0)),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => Some((1, major, number(minor)?)),
            (_, Some(minor)) => Some((0, major, number(minor)?)),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_maturity() {
        let mut all =
            ["foo10", "v1", "v11alpha2", "v3beta1", "v12alpha1", "v10", "v2", "foo1", "v11beta2", "v10beta3"];
        all.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(
            all,
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
        );
    }
    use proptest::prelude::*;

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(
            dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
              with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns1123_subdomain(&"a".repeat(254)), ["must be no more than 253 characters"]);
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
        assert_eq!(
            qualified_name(&format!("{}/x", "a".repeat(254))),
            ["prefix part must be no more than 253 bytes"]
        );
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(
            qualified_name(""),
            [
                "name part must be non-empty",
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must \
              start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
              validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ]
        );
        assert_eq!(path_segment(".."), ["may not be '..'"]);
        assert_eq!(path_segment("a/%"), ["may not contain '/'", "may not contain '%'"]);
        assert_eq!(
            port_name("-"),
            ["must contain at least one letter (a-z)", "must not begin or end with a hyphen"]
        );
    }

    #[test]
    fn valid_names_have_no_errors() {
        for name in ["a", "a-b", "0", "my-name"] {
            assert!(dns1123_label(name).is_empty(), "{name}");
        }
        for name in ["a.b", "example.com", "1.2.3"] {
            assert!(dns1123_subdomain(name).is_empty(), "{name}");
        }
        for name in ["", ".", "a.", ".a", "a..b", "-a", "a-", "A.b"] {
            assert!(!dns1123_subdomain(name).is_empty(), "{name}");
        }
        assert!(!dns1035_label("1a").is_empty());
        assert!(
            label_value("").is_empty() && label_value("A_b.c-1").is_empty() && !label_value("-").is_empty()
        );
        assert!(qualified_name("example.com/a_B").is_empty() && !qualified_name("a/b/c").is_empty());
    }

    #[test]
    fn generated_names_fit_a_label() {
        assert_eq!(generate_name("web-", 0), "web-bbbbb");
        assert_eq!(generate_name(&"x".repeat(80), 1).len(), 63);
        assert_eq!(mask_trailing_dash("a-"), "aa");
        assert_eq!(mask_trailing_dash("-"), "-");
    }

    proptest! {
        #[test]
        fn generated_names_of_valid_prefixes_are_valid(prefix in "[a-z][a-z0-9-]{0,70}", random: u64) {
            prop_assert!(dns1123_label(&generate_name(&prefix, random)).is_empty());
        }

        #[test]
        fn no_input_panics(text in any::<String>(), random: u64) {
            let _ = (dns1123_label(&text), qualified_name(&text), label_value(&text), generate_name(&text, random));
        }
    }
}
