//! A Corefile as sections of directives, before anybody asks what they mean. Pure.
//!
//! ```text
//! ZONE[:PORT]... {
//!     DIRECTIVE ARGUMENT... [{
//!         LINE...
//!     }]
//! }
//! ```

/// What CoreDNS calls a server block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    /// Zones with their ports, as they are written.
    pub(crate) zones: Vec<String>,
    pub(crate) directives: Vec<Directive>,
}

/// One directive with what is in its braces, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    /// Its name, then its arguments.
    pub(crate) words: Vec<String>,
    pub(crate) body: Vec<Vec<String>>,
}

/// Braces that do not match, or a section without a zone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(crate) struct Unreadable {
    line: usize,
    reason: &'static str,
}

/// The sections of a Corefile.
///
/// # Errors
/// Its braces do not match.
pub(crate) fn sections(text: &str) -> Result<Vec<Section>, Unreadable> {
    let mut all = Vec::new();
    let (mut zones, mut open, mut depth, mut last) = (Vec::new(), None::<Section>, 0_u32, 0);
    for (line, text) in (1..).zip(text.lines()) {
        last = line;
        let refuse = |reason| Unreadable { line, reason };
        let mut words = words(text);
        let closes = words == ["}"];
        let opens = words.last().is_some_and(|word| word == "{");
        if opens {
            words.pop();
        }
        let Some(section) = open.as_mut() else {
            if closes {
                return Err(refuse("a brace closes what was not open"));
            }
            // a file of another place; `coredns-custom` is read whether it is named or not
            if zones.is_empty() && !opens && words.first().is_some_and(|word| word == "import") {
                continue;
            }
            zones.extend(words);
            if opens {
                if zones.is_empty() {
                    return Err(refuse("a section without a zone"));
                }
                open = Some(Section { zones: std::mem::take(&mut zones), directives: Vec::new() });
            }
            continue;
        };
        match (closes, depth) {
            (true, 0) => all.extend(open.take()),
            (true, _) => depth -= 1,
            (false, 0) => {
                if words.is_empty() && opens {
                    return Err(refuse("braces without a directive"));
                }
                if !words.is_empty() {
                    section.directives.push(directive(words));
                }
            }
            (false, _) => {
                if let Some(directive) = section.directives.last_mut()
                    && !words.is_empty()
                {
                    directive.body.push(words);
                }
            }
        }
        depth += u32::from(opens);
    }
    if open.is_some() || !zones.is_empty() {
        return Err(Unreadable { line: last, reason: "a section that does not end" });
    }
    Ok(all)
}

/// A directive's words; its braces may open and close on one line.
fn directive(mut words: Vec<String>) -> Directive {
    let mut body = Vec::new();
    if let Some(at) = words.iter().position(|word| word == "{")
        && words.last().is_some_and(|word| word == "}")
    {
        words.pop();
        let line = words.split_off(at).split_off(1);
        body.extend((!line.is_empty()).then_some(line));
    }
    Directive { words, body }
}

/// Directives that stand without a section, as additions to one.
///
/// # Errors
/// Their braces do not match.
pub(crate) fn directives(text: &str) -> Result<Vec<Directive>, Unreadable> {
    let all = sections(&format!(". {{\n{text}\n}}"))
        .map_err(|error| Unreadable { line: error.line.saturating_sub(1), ..error })?;
    match <[Section; 1]>::try_from(all) {
        Ok([section]) => Ok(section.directives),
        Err(_) => Err(Unreadable { line: 1, reason: "a brace closes what was not open" }),
    }
}

/// The words of a line, up to a comment. Quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_directives_and_their_lines_are_told_apart() {
        let text = "# ours\n.:53 {\n  errors\n  health {\n    lameduck 5s\n  }\n  log \"a b\" # c\n}\n\na.example:53\nb.example {\n forward . 1.1.1.1\n}\n";
        let all = sections(text).unwrap();
        assert_eq!(
            all.iter().map(|s| s.zones.join(" ")).collect::<Vec<_>>(),
            [".:53", "a.example:53 b.example"]
        );
        assert_eq!(all[0].directives.len(), 3);
        assert_eq!(all[0].directives[1].body, [["lameduck", "5s"]]);
        assert_eq!(all[0].directives[2].words, ["log", "a b"]);
        assert_eq!(sections(""), Ok(Vec::new()));
    }

    #[test]
    fn braces_that_do_not_match_must_not_pass_for_a_file() {
        for (text, line) in [("}", 1), (". {\n errors\n", 2), ("{\n}", 1), (".", 1), (". {\n {\n }\n}", 2)] {
            assert_eq!(sections(text).unwrap_err().line, line, "{text:?}");
        }
        assert_eq!(directives("log\nhosts {\n 10.0.0.1 a\n}").unwrap().len(), 2);
        for text in ["hosts {", "}\n. {\n log"] {
            assert!(directives(text).is_err(), "{text:?}");
        }
    }
}
