use super::*;

#[test]
fn what_is_no_url_of_a_request_is_refused_in_gos_words() {
    for (text, why) in [
        ("", "empty url"),
        ("a/b", "invalid URI for request"),
        ("#%blah$#@", "invalid URI for request"),
        ("http://#%blah$#@", "net/url: invalid userinfo"),
        ("http://a b@c", "net/url: invalid userinfo"),
        ("http://%zz@c", "invalid URL escape \"%zz\""),
        (":80", "missing protocol scheme"),
        ("https://a/\n", "net/url: invalid control character in URL"),
        ("https://a\u{7f}/", "net/url: invalid control character in URL"),
        ("http://a b", "invalid character \" \" in host name"),
        ("http://a\\b", "invalid character \"\\\\\" in host name"),
        ("http://a{b}/", "invalid character \"{\" in host name"),
        ("http://a%41", "invalid URL escape \"%41\""),
        ("http://a/%4", "invalid URL escape \"%4\""),
        ("http://a/%zz/b", "invalid URL escape \"%zz\""),
        ("http://a:b", "invalid port \":b\" after host"),
        ("http://a:8:9", "invalid port \":8:9\" after host"),
        ("http://[::1", "missing ']' in host"),
        ("http://[::1]x", "invalid port \"x\" after host"),
        ("http://a[::1]", "invalid IP-literal"),
        ("http://[1.2.3.4]", "invalid IP-literal"),
        ("http://[a]", "invalid host: ParseAddr(\"a\"): unable to parse IP"),
    ] {
        assert_eq!(Url::of_request(text), Err(format!("parse {}: {why}", go_quote(text))), "{text}");
    }
}

#[test]
fn urls_come_apart_as_in_go() {
    for (text, scheme, host, path, query) in [
        ("HTTP://Example.com:80/a b?c=d", "http", "Example.com:80", "/a%20b", "c=d"),
        ("mailto:a@b", "mailto", "", "", ""),
        ("/a%2fb?", "", "", "/a%2fb", ""),
        ("//a/b", "", "", "//a/b", ""),
        ("*", "", "", "*", ""),
        ("oci://[fe80::1%25en0]:80/x", "oci", "[fe80::1%en0]:80", "/x", ""),
        ("postgres://a:1,b:2/db", "postgres", "a:1,b:2", "/db", ""),
        ("https://a/(b)!*'[c]", "https", "a", "/(b)!*'[c]", ""),
        ("https://a/(b) c", "https", "a", "/%28b%29%20c", ""),
        ("https://%C3%A9", "https", "é", "", ""),
    ] {
        let url = Url::of_request(text).unwrap();
        assert_eq!(
            (&*url.scheme, &*url.host, &*url.path, &*url.query),
            (scheme, host, path, query),
            "{text}"
        );
    }
}

#[test]
fn fragments_and_relative_urls_are_for_parse_alone() {
    let url = Url::parse("https://me:pw@a/b?c#d").unwrap();
    assert_eq!(
        (&*url.path, &*url.query, &*url.fragment, url.user.as_deref()),
        ("/b", "c", "d", Some("me:pw"))
    );
    assert_eq!(Url::parse("//a/b").unwrap().host, "a");
    assert_eq!(Url::parse("a/b").unwrap().path, "a/b");
    assert_eq!(Url::parse("a:b/c").unwrap().scheme, "a");
    for (text, why) in [
        ("1:b", "parse \"1:b\": first path segment in URL cannot contain colon"),
        ("https://a/#%", "parse \"https://a/#%\": invalid URL escape \"%\""),
    ] {
        assert_eq!(Url::parse(text), Err(why.to_owned()), "{text}");
    }
}

#[test]
fn ports_and_parameters() {
    let parts = |text: &str| {
        let url = Url::of_request(text).unwrap();
        let (name, port) = url.name_and_port();
        (name.to_owned(), port.to_owned())
    };
    assert_eq!(parts("https://[::1]:80/"), ("::1".to_owned(), "80".to_owned()));
    assert_eq!(parts("https://[::1]"), ("::1".to_owned(), String::new()));
    assert_eq!(parts("https://a:"), ("a".to_owned(), String::new()));
    let url = Url::of_request("/p?a=1&a=b+c&d&%zz=1&e;f=2&=g").unwrap();
    let got: Vec<(String, String)> = url.parameters().collect();
    let want = [("a", "1"), ("a", "b c"), ("d", ""), ("", "g")];
    assert_eq!(got, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
}
