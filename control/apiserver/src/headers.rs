//! What is said beside every answer: to which pages browsers may show it (CORS), and that they keep to TLS (HSTS).
//! Upstream: `apiserver/pkg/server/filters/{cors,hsts}.go`.

use crate::answer;
use crate::context::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue, InvalidHeaderValue, ORIGIN,
    STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderMap, HeaderName, StatusCode};
use machinery::re2::{self, Regex};

/// What every page that is allowed at all is told.
const ALLOWED: [(HeaderName, &str); 4] = [
    (ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE, PATCH"),
    (
        ACCESS_CONTROL_ALLOW_HEADERS,
        "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
    ),
    (ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
];

/// Which pages may read answers, and how long browsers keep to TLS.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    origins: Vec<Regex>,
    transport: Option<HeaderValue>,
}

impl Headers {
    /// Pages whose origin one of these expressions finds may read answers.
    ///
    /// # Errors
    /// For an expression that is none.
    pub fn allow_origins(&mut self, expressions: &[String]) -> Result<(), re2::Error> {
        self.origins = expressions.iter().map(|text| Regex::new(text)).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Says these directives with every answer; none: nothing.
    ///
    /// # Errors
    /// For what no header can hold.
    pub fn keep_to_tls(&mut self, directives: &[String]) -> Result<(), InvalidHeaderValue> {
        let joined = Some(directives.join("; ")).filter(|_| !directives.is_empty());
        self.transport = joined.map(|text| HeaderValue::from_str(&text)).transpose()?;
        Ok(())
    }

    /// The origin a request says it comes from, where its page may read the answer.
    pub(crate) fn origin(&self, asked: &HeaderMap) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return None;
        }
        let origin = asked.get(ORIGIN)?;
        let text = origin.to_str().ok().filter(|text| !text.is_empty())?;
        self.origins.iter().any(|allowed| allowed.is_match(text)).then(|| origin.clone())
    }

    /// The answer to a browser that asks whether it may ask.
    pub(crate) fn preflight() -> Response {
        let mut response = Response::new(answer::body(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    }

    /// Writes all of it on an answer.
    pub(crate) fn dress(&self, response: &mut Response, origin: Option<HeaderValue>) {
        let headers = response.headers_mut();
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.extend(ALLOWED.map(|(name, value)| (name, HeaderValue::from_static(value))));
        }
        if let Some(transport) = &self.transport {
            headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| transport.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origins: &[&str], directives: &[&str]) -> Headers {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let mut headers = Headers::default();
        headers.allow_origins(&owned(origins)).unwrap();
        headers.keep_to_tls(&owned(directives)).unwrap();
        headers
    }

    fn asked(origin: &str) -> HeaderMap {
        HeaderMap::from_iter([(ORIGIN, HeaderValue::from_str(origin).unwrap())])
    }

    #[test]
    fn a_page_elsewhere_must_not_read_answers() {
        let allowed = headers(&["^https://example\\.com(:|$)", "//other\\.example$"], &[]);
        for (origin, may) in [
            ("https://example.com", true),
            ("https://example.com:8443", true),
            ("http://other.example", true),
            ("https://example.com.evil.test", false),
            ("http://example.com", false),
            ("", false),
        ] {
            assert_eq!(allowed.origin(&asked(origin)).is_some(), may, "{origin}");
        }
        assert_eq!(headers(&[], &[]).origin(&asked("https://example.com")), None);
        assert_eq!(allowed.origin(&HeaderMap::new()), None);
    }

    #[test]
    fn answers_say_what_was_set_and_nothing_by_default() {
        let mut plain = Headers::preflight();
        Headers::default().dress(&mut plain, None);
        assert!(plain.headers().is_empty() && plain.status() == StatusCode::NO_CONTENT);
        let set = headers(&["//a$"], &["max-age=31536000", "includeSubDomains"]);
        let mut dressed = Headers::preflight();
        set.dress(&mut dressed, set.origin(&asked("https://a")));
        let said = |name: HeaderName| dressed.headers().get(name).and_then(|v| v.to_str().ok());
        assert_eq!(said(STRICT_TRANSPORT_SECURITY), Some("max-age=31536000; includeSubDomains"));
        assert_eq!(said(ACCESS_CONTROL_ALLOW_ORIGIN), Some("https://a"));
        assert_eq!(said(ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(said(ACCESS_CONTROL_ALLOW_METHODS), Some("POST, GET, OPTIONS, PUT, DELETE, PATCH"));
    }
}
