//! What Go 1.26's `regexp` says of each.

use super::*;

fn refusal(text: &str) -> String {
    assert_eq!(Regex::check(text).err(), Regex::new(text).err(), "{text:.40}");
    Regex::new(text).map_or_else(|why| why.to_string(), |_| "accepted".to_owned())
}

#[test]
fn what_go_refuses_must_not_be_accepted_and_is_refused_in_its_words() {
    for (pattern, why) in [
        ("a++", "invalid nested repetition operator: `++`"),
        ("x**", "invalid nested repetition operator: `**`"),
        ("a+*?b", "invalid nested repetition operator: `+*?`"),
        ("a{3}{2}", "invalid nested repetition operator: `{3}{2}`"),
        ("a??+", "invalid nested repetition operator: `??+`"),
        ("(?x)", "invalid or unsupported Perl syntax: `(?x`"),
        ("a(?=b)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?<=b)", "invalid named capture: `(?<=b)`"),
        ("(?!b)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?>b)", "invalid or unsupported Perl syntax: `(?>`"),
        ("(?i-)", "invalid or unsupported Perl syntax: `(?i-)`"),
        ("(?i-s-m)", "invalid or unsupported Perl syntax: `(?i-s-`"),
        ("(?u)", "invalid or unsupported Perl syntax: `(?u`"),
        ("(?i", "invalid or unsupported Perl syntax: `(?i`"),
        ("(?P=n)", "invalid or unsupported Perl syntax: `(?P`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
        ("(?P<>a)", "invalid named capture: `(?P<>`"),
        ("(?<a-b>c)", "invalid named capture: `(?<a-b>`"),
        ("a{1,1001}", "invalid repeat count: `{1,1001}`"),
        ("a{2,1}?", "invalid repeat count: `{2,1}`"),
        ("a{99999999999,}", "invalid repeat count: `{99999999999,}`"),
        ("((a{100})*b){11}", "invalid repeat count: `{11}`"),
        (r"\u0041", r"invalid escape sequence: `\u`"),
        (r"\1", r"invalid escape sequence: `\1`"),
        (r"\8", r"invalid escape sequence: `\8`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"\C", r"invalid escape sequence: `\C`"),
        (r"\é", r"invalid escape sequence: `\é`"),
        (r"\x4", r"invalid escape sequence: `\x4`"),
        (r"\x{110000}", r"invalid escape sequence: `\x{110000`"),
        (r"\x{}", r"invalid escape sequence: `\x{}`"),
        (r"[\b]", r"invalid escape sequence: `\b`"),
        (r"[\Q]\E]", r"invalid escape sequence: `\Q`"),
        (r"[a-\d]", r"invalid escape sequence: `\d`"),
        (r"a\", "trailing backslash at end of expression: ``"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        ("[a--b]", "invalid character class range: `a--`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        (r"\pX", r"invalid character class range: `\pX`"),
        (r"\p", r"invalid character class range: `\p`"),
        (r"a\p{Greek", r"invalid character class range: `\p{Greek`"),
        (r"\p{Grek}", r"invalid character class range: `\p{Grek}`"),
        (r"\p{Old_Italic}", r"invalid character class range: `\p{Old_Italic}`"),
        ("x[a", "missing closing ]: `[a`"),
        ("[]", "missing closing ]: `[]`"),
        ("[[:alpha:]", "missing closing ]: `[[:alpha:]`"),
        ("a(b|", "missing closing ): `a(b|`"),
        ("a)b", "unexpected ): `a)b`"),
        ("a|b|))", "unexpected ): `a|b|))`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("(|{2,}?)", "missing argument to repetition operator: `{2,}?`"),
        (r"\Q\E+", "missing argument to repetition operator: `+`"),
        ("(?i)+", "missing argument to repetition operator: `+`"),
    ] {
        assert_eq!(refusal(pattern), format!("error parsing regexp: {why}"), "{pattern}");
    }
}

#[test]
fn limits_are_go_s() {
    let refused = |text: &str| refusal(text).split(": ").nth(1).unwrap_or("accepted").to_owned();
    let nested = |open: &str, close: &str, times| open.repeat(times) + &close.repeat(times);
    for (pattern, what) in [
        (nested("(", ")", 999), "accepted"),
        (nested("(", ")", 1000), "expression nests too deeply"),
        (nested("(?:", ")*", 999), "accepted"),
        (nested("(?:", ")*", 1000), "expression nests too deeply"),
        (format!("({}){{1000}}", "(xx?)".repeat(1000)), "expression too large"),
        ("(xx?){1000}".repeat(1000), "expression too large"),
        (r"\pL".repeat(27_000), "expression too large"),
        (format!("((({}", "(x{2}){2}".repeat(3)), "missing closing )"),
        ("x{1000}".to_owned(), "accepted"),
        (r"^\pL{1,1000}$".to_owned(), "accepted"),
    ] {
        assert_eq!(refused(&pattern), what, "{:.40}", pattern);
    }
}

/// A pattern, a text, and what follows one another in it.
const FOUND: [(&str, &str, &[&str]); 62] = [
    (r"[^()[\]]+", "a(b)[c]", &["a", "b", "c"]),
    (r"\Qa.b*\E+", "a.b** axb", &["a.b**"]),
    (r"\Q[x", "a[x", &["[x"]),
    (r"\07", "\u{7}7", &["\u{7}"]),
    (r"\101\x42\x{43}\012", "ABC\n", &["ABC\n"]),
    (r"\377", "ÿ", &["ÿ"]),
    ("a{,5}", "a{,5}aa", &["a{,5}"]),
    ("{", "a{", &["{"]),
    (
        "a{b}|a{01}|a{1,02}|a{ 1}|a{-1}",
        "a{b}a{01}a{1,02}a{ 1}a{-1}",
        &["a{b}", "a{01}", "a{1,02}", "a{ 1}", "a{-1}"],
    ),
    ("x{0}y{0,}z{2,}", "yyzzzz", &["yyzzzz"]),
    ("}]", "}]", &["}]"]),
    (r"\d+", "1٣2", &["1", "2"]),
    (r"\w+", "aéb_1", &["a", "b_1"]),
    (r"\W", "aéb", &["é"]),
    (r"\s", "a\u{b}\u{a0}\u{2028}", &[]),
    (r"\S+", " \u{b}\u{a0} ", &["\u{b}\u{a0}"]),
    (r"\bb", "éb", &["b"]),
    (r"\B", "é", &["", ""]),
    (r"[[:space:]]", "\u{b}", &["\u{b}"]),
    (r"[[:^alpha:][:word:]-]+", "é-z", &["é-z"]),
    ("[:alpha:]+", "alpha:b", &["alpha:"]),
    ("[[a]]", "a]", &["a]"]),
    ("[]a]+", "]a", &["]a"]),
    ("[^]a]", "]ab", &["b"]),
    ("[a-]+|[-b]+|[a-b-c]+", "a-b", &["a-", "b"]),
    ("[a&&b]+", "a&b", &["a&b"]),
    ("[a~~b]+", "~", &["~"]),
    (r"[\-\]\^]+", "-]^", &["-]^"]),
    (r"[^\x00-\x{10FFFF}]|[^\s\S]", "a", &[]),
    (r"[^\x{e000}-\x{ffff}]", "\u{d7ff}\u{e000}", &["\u{d7ff}"]),
    (r"\x{d800}|[\x{d800}-\x{dfff}]", "\u{fffd}", &[]),
    ("é+", "éé", &["éé"]),
    (".", "\na", &["a"]),
    ("(?s).", "\na", &["\n", "a"]),
    ("a$", "a\n", &[]),
    ("(?m)^a$", "b\na\nc", &["a"]),
    ("(?m)a$", "a\r\n", &[]),
    (r"a\z", "aa", &["a"]),
    (r"\Aa", "aa", &["a"]),
    ("(?i)k", "kK\u{212a}", &["k", "K", "\u{212a}"]),
    (r"(?i)[^k]", "kK\u{212a}x", &["x"]),
    (r"(?i)\w", "ſé", &["ſ"]),
    (r"(?i)[[:^upper:]]", "aA1", &["1"]),
    (r"(?i)\P{Lu}|1", "aA1", &["1"]),
    ("(?i)σ", "Σςσ", &["Σ", "ς", "σ"]),
    ("(?i:a)a|(?-i)B", "AaAAB", &["Aa", "B"]),
    ("(?i)\u{264}", "\u{a7cb}", &[]),
    ("(?U)a+|b+?", "aabb", &["a", "a", "bb"]),
    ("(?P<n>a)(?<m>b)(c)", "abc", &["abc"]),
    ("(?:)|(?)a", "a", &["", ""]),
    ("ab|abc", "abc", &["ab"]),
    ("(?:a|ab)(?:c|bcd)", "abcd", &["abcd"]),
    ("a*", "baac", &["", "aa", ""]),
    ("(|a)+", "aa", &["", "", ""]),
    ("(a*)*|b", "aab", &["aa", ""]),
    (r"(?:(\w\b|\S*?)([K-k]|\b)*?)*", "_-,:=!", &["_-", "", "", "", ""]),
    (r"\pL+\PL", "é1", &["é1"]),
    (r"\p{^Greek}|\P{^Nd}", "α1", &["1"]),
    (r"\p{greek}\p{Lowercase_Letter}\p{lower-case letter}", "αab", &["αab"]),
    (r"\p{Any}\p{Assigned}\p{ASCII}", "\u{378}aa", &["\u{378}aa"]),
    (r"\p{Cn}|\pC", "\u{105d2}\u{e000}", &["\u{105d2}", "\u{e000}"]),
    (r"\p{Cs}|\p{Mn}", "\u{1171e}", &["\u{1171e}"]),
];

#[test]
fn what_matches_is_what_go_finds() {
    for (pattern, text, found) in FOUND {
        let regex = Regex::new(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
        let all: Vec<&str> = regex.find_iter(text).map(|found| found.as_str()).collect();
        assert_eq!(all, found, "{pattern} in {text:?}");
        assert_eq!(regex.find(text).map(|found| found.as_str()), found.first().copied(), "{pattern}");
        assert_eq!(regex.is_match(text), !found.is_empty(), "{pattern}");
    }
}

#[test]
fn an_expression_that_is_large_must_not_match_otherwise_than_a_small_one() {
    for (pattern, text, _) in FOUND {
        let Ok(node) = parse::parse(pattern) else { continue };
        let machine = Regex(Arc::new(Engine::Machine(Machine::new(&node).unwrap())));
        let regex = Regex::new(pattern).unwrap();
        assert!(matches!(*regex.0, Engine::Crate(_)), "{pattern}");
        let ours: Vec<Match<'_>> = machine.find_iter(text).collect();
        assert_eq!(ours, regex.find_iter(text).collect::<Vec<_>>(), "{pattern} in {text:?}");
    }
}

#[test]
fn a_thousand_letters_are_counted_in_little_memory() {
    let regex = Regex::new(r"^(?:\pL\PN?){1,500}$").unwrap();
    assert!(matches!(*regex.0, Engine::Machine(_)));
    assert!(regex.is_match(&"é".repeat(1000)) && !regex.is_match(&"é".repeat(1001)));
    let regex = Regex::new(r"^(?s:.{1,1000})$").unwrap();
    assert!(regex.is_match(&"\n".repeat(1000)) && !regex.is_match(&"\n".repeat(1001)));
}

#[test]
fn an_expression_asked_for_again_is_the_same() {
    let (first, again) = (Regex::lately("a[b]{3}c").unwrap(), Regex::lately("a[b]{3}c").unwrap());
    assert!(Arc::ptr_eq(&first.0, &again.0));
    assert_eq!(Regex::lately("[").map_err(|why| why.to_string()).err(), Some(refusal("[")));
}
