//! Which of several media types a client would rather have: the `Accept` header.

use http::HeaderMap;
use http::header::ACCEPT;

/// One media range of an `Accept` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// `application/json`, `application/*` or `*/*`, in lower case.
    pub media_type: String,
    /// Parameters but for `q`, names in lower case.
    pub parameters: Vec<(String, String)>,
    /// Preference in thousandths.
    quality: u16,
}

impl Range {
    /// The value of a parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether `media_type` is in the range.
    #[must_use]
    pub fn covers(&self, media_type: &str) -> bool {
        self.media_type == "*/*"
            || self.media_type == media_type
            || self
                .media_type
                .strip_suffix("/*")
                .is_some_and(|t| media_type.strip_prefix(t).is_some_and(|rest| rest.starts_with('/')))
    }
}

/// The ranges a client accepts, the most wanted first; `*/*` where it does not say.
#[must_use]
pub fn accepted(headers: &HeaderMap) -> Vec<Range> {
    let mut ranges: Vec<Range> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(parse)
        .filter(|r| r.quality > 0)
        .collect();
    if ranges.is_empty() && !headers.contains_key(ACCEPT) {
        ranges.extend(parse("*/*"));
    }
    ranges.sort_by_key(|r| std::cmp::Reverse(r.quality));
    ranges
}

fn parse(text: &str) -> Option<Range> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().filter(|t| t.contains('/'))?.to_lowercase();
    let mut range = Range { media_type, parameters: Vec::new(), quality: 1000 };
    for (name, value) in parts.filter_map(|p| p.split_once('=')) {
        let (name, value) = (name.trim().to_lowercase(), value.trim().trim_matches('"'));
        if name == "q" {
            let quality: f64 = value.parse().unwrap_or(0.0);
            // Bounded first: a client may write anything.
            range.quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
        } else {
            range.parameters.push((name, value.to_owned()));
        }
    }
    Some(range)
}

/// The first of `offered` that the client wants most.
#[must_use]
pub fn choose<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Option<&'a str> {
    accepted(headers).iter().find_map(|range| offered.iter().find(|o| range.covers(o)).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())])
    }

    #[test]
    fn the_most_wanted_is_chosen() {
        let offered = ["application/json", "application/yaml"];
        for (accept, chosen) in [
            ("*/*", Some("application/json")),
            ("application/yaml", Some("application/yaml")),
            ("application/yaml;q=0.5, application/json;q=0.9", Some("application/json")),
            ("application/vnd.kubernetes.protobuf, */*", Some("application/json")),
            ("application/*", Some("application/json")),
            ("text/html", None),
            ("application/json;q=0", None),
        ] {
            assert_eq!(choose(&headers(accept), &offered), chosen, "{accept}");
        }
        assert_eq!(choose(&HeaderMap::new(), &offered), Some("application/json"));
        let range =
            &accepted(&headers("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"))[0];
        assert_eq!(range.parameter("as"), Some("APIGroupDiscoveryList"));
    }

    proptest! {
        #[test]
        fn no_header_panics(accept in "[ -~]{0,60}") {
            let _ = choose(&headers(&accept), &["application/json"]);
        }
    }
}
