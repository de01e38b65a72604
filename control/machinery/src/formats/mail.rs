//! One mail address as RFC 5322 has it, the way Go's `mail.ParseAddress` reads it: bare, behind a name, with
//! comments, or alone in a group.

use std::net::IpAddr;

/// Whether `text` is one mail address.
pub(super) fn is_address(text: &str) -> bool {
    let mut rest = Rest(text);
    rest.address(true) == Some(1) && rest.comments().is_some() && rest.0.is_empty()
}

/// What is not read yet.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a str);

fn visible(c: char) -> bool {
    c.is_ascii_graphic() || !c.is_ascii()
}

fn in_atom(c: char) -> bool {
    visible(c) && !"()<>[]:;@\\,\"".contains(c)
}

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// Between the brackets of a domain: an IPv4 address, or an IPv6 one with its tag.
fn literal(inside: &str) -> bool {
    match inside.strip_prefix("IPv6:") {
        Some(address) => address.parse::<IpAddr>().is_ok(),
        None => inside.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_ipv4()),
    }
}

impl<'a> Rest<'a> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches(blank);
    }

    fn take(&mut self, c: char) -> Option<()> {
        self.0 = self.0.strip_prefix(c)?;
        Some(())
    }

    fn take_while(&mut self, allowed: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c: char| !allowed(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// Comments in parentheses, nested or not, and the blanks around them.
    fn comments(&mut self) -> Option<()> {
        self.skip_blanks();
        while self.0.starts_with('(') {
            self.comment()?;
            self.skip_blanks();
        }
        Some(())
    }

    fn comment(&mut self) -> Option<()> {
        let (mut depth, mut escaped) = (0_usize, false);
        for (at, c) in self.0.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.0 = &self.0[at + c.len_utf8()..];
                return Some(());
            }
        }
        None
    }

    /// How many addresses there are: one, or those of a group.
    fn address(&mut self, group: bool) -> Option<usize> {
        self.skip_blanks();
        let mut bare = *self;
        if bare.spec().is_some() {
            *self = bare;
            self.skip_blanks();
            if self.0.starts_with('(') {
                self.comment()?;
            }
            return Some(1);
        }
        if !self.0.is_empty() && !self.0.starts_with('<') {
            self.phrase()?;
        }
        self.skip_blanks();
        if group && self.take(':').is_some() {
            return self.members();
        }
        self.take('<')?;
        self.spec()?;
        self.take('>')?;
        Some(1)
    }

    /// Behind the colon of a group.
    fn members(&mut self) -> Option<usize> {
        self.skip_blanks();
        if self.take(';').is_some() {
            self.comments()?;
            return Some(0);
        }
        let mut count = 0;
        loop {
            count += self.address(false)?;
            self.comments()?;
            if self.take(';').is_some() {
                self.comments()?;
                return Some(count);
            }
            self.take(',')?;
        }
    }

    /// `local@domain`.
    fn spec(&mut self) -> Option<()> {
        self.skip_blanks();
        if self.0.starts_with('"') {
            self.quoted().filter(|inside| !inside.is_empty())?;
        } else {
            self.atom(false)?;
        }
        self.take('@')?;
        self.skip_blanks();
        if self.take('[').is_none() {
            return self.atom(false);
        }
        let inside = self.take_while(|c| visible(c) && !"[]\\".contains(c));
        self.take(']')?;
        literal(inside).then_some(())
    }

    /// Words before an address; more than none.
    fn phrase(&mut self) -> Option<()> {
        let mut words = 0;
        loop {
            if words > 0 {
                self.comments()?;
            }
            self.skip_blanks();
            let mut word = *self;
            let found = if word.0.starts_with('"') { word.quoted().map(|_| ()) } else { word.atom(true) };
            if found.is_none() {
                break;
            }
            *self = word;
            words += 1;
        }
        (words > 0).then_some(())
    }

    /// Letters and dots; none at the ends and no two together, unless `any`.
    fn atom(&mut self, any: bool) -> Option<()> {
        let atom = self.take_while(|c| c == '.' || in_atom(c));
        let dots = atom.starts_with('.') || atom.ends_with('.') || atom.contains("..");
        (!atom.is_empty() && (any || !dots)).then_some(())
    }

    /// What is between double quotes.
    fn quoted(&mut self) -> Option<&'a str> {
        let inside = self.0.strip_prefix('"')?;
        let mut escaped = false;
        for (at, c) in inside.char_indices() {
            match c {
                _ if !visible(c) && !blank(c) => return None,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    self.0 = &inside[at + 1..];
                    return Some(&inside[..at]);
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn addresses_are_read_as_in_go() {
        for good in [
            "a@b",
            "first.last+tag@example.com",
            "Name Of <a@b>",
            "\"Quoted, (Name)\" <a@b>",
            "<a@b>",
            "a@b (comment (nested))",
            "\"odd local\"@b",
            "a@[10.0.0.1]",
            "a@[IPv6:::1]",
            "ü@bücher.example",
            " a@b ",
            "group: a@b;",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "a@",
            "@b",
            "a@b@c",
            "a@b c",
            "a b@c",
            ".a@b",
            "a..b@c",
            "a@b.",
            "Name <a@b",
            "a@b (open",
            "\"\"@b",
            "a@[10.0.0]",
            "a@[x]",
            "a@b, c@d",
            "group: a@b, c@d;",
            "group:;",
            "a@b\n",
            "(first) <a@b>",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
