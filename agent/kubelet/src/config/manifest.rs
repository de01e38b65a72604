//! Where a manifest of static pods is fetched from (`staticPodURL`).

use std::time::Duration;

/// A URL, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestUrl {
    /// `http://` or `https://`.
    pub url: String,
    /// Headers of the request.
    pub headers: Vec<(String, String)>,
    /// `httpCheckFrequency`
    pub period: Duration,
}
