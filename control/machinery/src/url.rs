//! URLs as Go's `net/url` reads them: which texts the API takes for URLs, and their parts.

use crate::goformat::go_quote;
use std::net::Ipv6Addr;

/// A URL in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    /// As it was given.
    pub text: String,
    /// In lower case, empty for a bare path.
    pub scheme: String,
    /// What stands before the last `@` of the authority.
    pub user: Option<String>,
    /// Unescaped, with the port and with the brackets of an IPv6 address.
    pub host: String,
    /// As `EscapedPath` gives it.
    pub path: String,
    /// Behind the question mark, escaped.
    pub query: String,
    /// Behind the hash, escaped.
    pub fragment: String,
}

/// What an escaped part may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Host,
    Zone,
    Query,
    Other,
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

/// The bytes of a host that need no escape.
fn plain_in_host(byte: u8) -> bool {
    unreserved(byte) || b"!$&'()*+,;=:[]<>\"".contains(&byte)
}

fn plain_in_path(byte: u8) -> bool {
    unreserved(byte) || b"$&+,/:;=@".contains(&byte)
}

fn bad_escape(text: &[u8]) -> String {
    format!("invalid URL escape {}", go_quote(&String::from_utf8_lossy(text)))
}

/// The two hexadecimal digits at the start of `text`.
fn hex(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|b| (*b as char).to_digit(16));
    Some(u8::try_from(digit(0)? << 4 | digit(1)?).unwrap_or_default())
}

fn unescape(text: &str, part: Part) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(i) {
        let rest = &bytes[i..];
        match byte {
            b'%' => {
                let short = &rest[..rest.len().min(3)];
                let value = hex(&rest[1..]).ok_or_else(|| bad_escape(short))?;
                let wrong = short != b"%25"
                    && match part {
                        Part::Host => value < 0x80,
                        Part::Zone => value != b' ' && !plain_in_host(value),
                        _ => false,
                    };
                if wrong {
                    return Err(bad_escape(short));
                }
                out.push(value);
                i += 2;
            }
            b'+' if part == Part::Query => out.push(b' '),
            _ if matches!(part, Part::Host | Part::Zone) && byte < 0x80 && !plain_in_host(byte) => {
                return Err(format!(
                    "invalid character {} in host name",
                    go_quote(&(byte as char).to_string())
                ));
            }
            _ => out.push(byte),
        }
        i += 1;
    }
    Ok(out)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Empty, or a colon and digits.
fn optional_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

fn bad_port(text: &str) -> String {
    format!("invalid port {} after host", go_quote(text))
}

/// An address in brackets, with its zone and port.
fn literal(host: &str) -> Result<String, String> {
    let close = host.rfind(']').ok_or("missing ']' in host")?;
    let (inside, port) = (&host[1..close], &host[close + 1..]);
    if !optional_port(port) {
        return Err(bad_port(port));
    }
    let (address, zone) = inside.split_at(inside.find("%25").unwrap_or(inside.len()));
    let address = lossy(&unescape(address, Part::Host)?);
    let zone = lossy(&unescape(zone, Part::Zone)?);
    let whole = format!("{address}{zone}");
    if address.parse::<std::net::Ipv4Addr>().is_ok() && zone.is_empty() {
        return Err("invalid IP-literal".to_owned());
    }
    if address.parse::<Ipv6Addr>().is_err() || zone == "%" {
        return Err(format!("invalid host: ParseAddr({}): unable to parse IP", go_quote(&whole)));
    }
    Ok(format!("[{whole}]{port}"))
}

/// A host with its port; of several colons only the last ends the name, and in HTTP there may be but one.
fn host_of(scheme: &str, host: &str) -> Result<String, String> {
    match host.rfind('[') {
        Some(0) => return literal(host),
        Some(_) => return Err("invalid IP-literal".to_owned()),
        None => {}
    }
    let colon = if matches!(scheme, "http" | "https") { host.find(':') } else { host.rfind(':') };
    if let Some(port) = colon.map(|at| &host[at..])
        && !optional_port(port)
    {
        return Err(bad_port(port));
    }
    Ok(lossy(&unescape(host, Part::Host)?))
}

fn user_of(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if !text.chars().all(allowed) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    Ok(lossy(&unescape(text, Part::Other)?))
}

/// Scheme and rest.
fn scheme_of(text: &str) -> Result<(&str, &str), String> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
    match end {
        Some(0) if text.starts_with(':') => Err("missing protocol scheme".to_owned()),
        Some(at) if text[at..].starts_with(':') && text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Ok((&text[..at], &text[at + 1..]))
        }
        _ => Ok(("", text)),
    }
}

/// The path as it may stand in a URL: as given where that is a valid encoding, else encoded anew.
fn escaped_path(path: &str) -> Result<String, String> {
    let valid = |byte: u8| plain_in_path(byte) || b"!'()*[]%".contains(&byte);
    let bytes = unescape(path, Part::Path)?;
    if path.bytes().all(valid) {
        return Ok(path.to_owned());
    }
    let escaped = |byte: u8| match byte {
        byte if plain_in_path(byte) => (byte as char).to_string(),
        byte => format!("%{byte:02X}"),
    };
    Ok(bytes.into_iter().map(escaped).collect())
}

fn parse(text: &str, request: bool) -> Result<Url, String> {
    if text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    if text.is_empty() && request {
        return Err("empty url".to_owned());
    }
    let mut url = Url { text: text.to_owned(), ..Url::default() };
    if text == "*" {
        "*".clone_into(&mut url.path);
        return Ok(url);
    }
    let (scheme, rest) = scheme_of(text)?;
    url.scheme = scheme.to_lowercase();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    query.clone_into(&mut url.query);
    if !rest.starts_with('/') {
        if !scheme.is_empty() {
            return Ok(url);
        }
        if request {
            return Err("invalid URI for request".to_owned());
        }
        if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
    }
    let mut path = rest;
    if (!scheme.is_empty() || !request && !rest.starts_with("///"))
        && let Some(after) = rest.strip_prefix("//")
    {
        let (authority, behind) = after.split_at(after.find('/').unwrap_or(after.len()));
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
        url.host = host_of(&url.scheme, host)?;
        url.user = user.map(user_of).transpose()?;
        path = behind;
    }
    url.path = escaped_path(path)?;
    Ok(url)
}

/// As an error names what it was that could not be parsed.
fn parsing(text: &str, why: String) -> String {
    format!("parse {}: {why}", go_quote(text))
}

impl Url {
    /// Any URL, relative ones too, with its fragment (Go: `url.Parse`).
    ///
    /// # Errors
    ///
    /// What is wrong, in Go's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
        let url = parse(before, false).map_err(|why| parsing(before, why))?;
        unescape(fragment, Part::Other).map_err(|why| parsing(text, why))?;
        Ok(Url { text: text.to_owned(), fragment: fragment.to_owned(), ..url })
    }

    /// A URL with a scheme, or an absolute path, without a fragment (Go: `url.ParseRequestURI`).
    ///
    /// # Errors
    ///
    /// What is wrong, in Go's words.
    pub fn of_request(text: &str) -> Result<Self, String> {
        parse(text, true).map_err(|why| parsing(text, why))
    }

    /// The host's name without brackets, and the port's digits.
    #[must_use]
    pub fn name_and_port(&self) -> (&str, &str) {
        let colon = self.host.rfind(':').filter(|at| optional_port(&self.host[*at..]));
        let (name, port) = colon.map_or((&self.host[..], ""), |at| (&self.host[..at], &self.host[at + 1..]));
        (name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name), port)
    }

    /// The parameters of the query, unescaped, in their order; those that are malformed are left out.
    pub fn parameters(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let text = |part: &str| unescape(part, Part::Query).ok().map(|bytes| lossy(&bytes));
        self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(move |pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((text(name)?, text(value)?))
        })
    }
}

#[cfg(test)]
mod tests;
