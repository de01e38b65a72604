//! The names of kernel parameters.

/// A name with dots between its parts: `net/ipv4/conf/eth0.1` is `net.ipv4.conf.eth0/1`.
pub fn name(text: &str) -> String {
    match text.find(['.', '/']) {
        Some(at) if text[at..].starts_with('/') => text
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_and_dots_change_places() {
        assert_eq!(name("net/ipv4/conf/eth0.1/x"), "net.ipv4.conf.eth0/1.x");
        assert_eq!(name("net.ipv4.conf.eth0/1.x"), "net.ipv4.conf.eth0/1.x");
    }
}
