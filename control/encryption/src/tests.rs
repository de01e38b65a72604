use super::*;
use proptest::prelude::*;
use std::path::PathBuf;

const KEY: &str = "/registry/secrets/d/a";
const VALUE: &[u8] = b"{\"kind\":\"Secret\"}";

/// What upstream's transformers (Go's own ciphers) make of [`VALUE`] at [`KEY`], by a key named `k` of as many bytes as the bytes say.
const THEIRS: [(&str, u8, &str); 7] = [
    (
        "aesgcm",
        16,
        "azhzOmVuYzphZXNnY206djE6azoHBwcHBwcHBwcHBwdIeESxW+XyAXSFHBhvNRMioR/8DRkm8YuklfcyBbhRBFk=",
    ),
    (
        "aesgcm",
        24,
        "azhzOmVuYzphZXNnY206djE6azoHBwcHBwcHBwcHBwd8Vnsoym+ukabeB9D9y1dUNoSUV814IC5iV8SbA8nAi9c=",
    ),
    (
        "aesgcm",
        32,
        "azhzOmVuYzphZXNnY206djE6azoHBwcHBwcHBwcHBwchdVBLK3y2H7CL/msXmpVC3rn+KYfkfscPu88bE9dgDZ8=",
    ),
    (
        "aescbc",
        16,
        "azhzOmVuYzphZXNjYmM6djE6azoJCQkJCQkJCQkJCQkJCQkJhytBwdk7sny5kPbzUhfTh+hbPPi/4VpHyZs+kNteFCg=",
    ),
    (
        "aescbc",
        24,
        "azhzOmVuYzphZXNjYmM6djE6azoJCQkJCQkJCQkJCQkJCQkJ8iL0Rr5Jvqrf0vtZWOsUQrtHiQ+7EiOqZYo6Fs5uwF0=",
    ),
    (
        "aescbc",
        32,
        "azhzOmVuYzphZXNjYmM6djE6azoJCQkJCQkJCQkJCQkJCQkJW82OxL4XnZetjQ3eIesIvqM8CLgJWtv0ueM5gp0w20w=",
    ),
    (
        "secretbox",
        32,
        "azhzOmVuYzpzZWNyZXRib3g6djE6azoFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU0JZzZTZfouo83BxGT8f7AlRsefa+gaLYekVZPJLBW61Y=",
    ),
];

fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// Keys as (name, byte it is made of, length).
fn provider(kind: &str, keys: &[(&str, u8, usize)]) -> String {
    use base64::Engine;
    let key = |(name, byte, length): &(&str, u8, usize)| {
        let secret = base64::engine::general_purpose::STANDARD.encode(vec![*byte; *length]);
        format!("{{name: {name}, secret: {secret}}}")
    };
    format!("{kind}: {{keys: [{}]}}", keys.iter().map(key).collect::<Vec<_>>().join(", "))
}

fn text(resources: &str, providers: &[&str]) -> String {
    let providers: String = providers.iter().map(|p| format!("  - {p}\n")).collect();
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [{resources}]\n  providers:\n{providers}"
    )
}

fn resource_of(key: &str) -> Option<(&str, &str)> {
    let mut parts = key.strip_prefix("/registry/")?.split('/');
    let first = parts.next()?;
    match first.contains('.') {
        true => Some((first, parts.next()?)),
        false => Some(("", first)),
    }
}

fn layer(text: &str) -> Encryption {
    Encryption {
        rules: ArcSwap::from_pointee(config::parse(text).unwrap()),
        replaced: Notify::new(),
        resource_of,
        prefix: "/registry".to_owned(),
    }
}

fn open(layer: &Encryption, key: &str, stored: &[u8]) -> Result<(Vec<u8>, bool), String> {
    match layer.decode(key, Bytes::copy_from_slice(stored)) {
        Ok(Decoded { value, stale }) => Ok((value.to_vec(), stale)),
        Err(Unreadable::Damaged(why)) => Err(why.to_string()),
        Err(Unreadable::Yet(_)) => Err("not yet".to_owned()),
    }
}

#[test]
fn what_upstream_sealed_is_opened() {
    for (kind, byte, sealed) in THEIRS {
        let layer = layer(&text("secrets", &[&provider(kind, &[("k", byte, byte.into())])]));
        assert_eq!(open(&layer, KEY, &decoded(sealed)), Ok((VALUE.to_vec(), false)), "{kind} {byte}");
    }
}

#[test]
fn a_value_must_not_be_opened_at_another_key() {
    let (_, byte, sealed) = THEIRS[2];
    let layer = layer(&text("secrets", &[&provider("aesgcm", &[("k", byte, byte.into())])]));
    assert!(open(&layer, "/registry/secrets/d/b", &decoded(sealed)).is_err());
    // Where it lies in etcd counts, not what those above the store call it.
    let elsewhere = Encryption { prefix: "/other".to_owned(), ..layer };
    assert!(open(&elsewhere, KEY, &decoded(sealed)).is_err());
}

#[test]
fn keys_are_rotated_by_writing_again() {
    let (old, new) = (("old", 1, 32), ("new", 2, 32));
    let before = layer(&text("secrets", &[&provider("secretbox", &[old]), "identity: {}"]));
    let sealed = before.encode(KEY, Bytes::from_static(VALUE)).unwrap();
    assert!(sealed.starts_with(b"k8s:enc:secretbox:v1:old:"));
    let both = layer(&text("secrets", &[&provider("secretbox", &[new, old]), "identity: {}"]));
    assert_eq!(open(&both, KEY, &sealed), Ok((VALUE.to_vec(), true)));
    assert_eq!(open(&both, KEY, VALUE), Ok((VALUE.to_vec(), true)));
    let again = both.encode(KEY, Bytes::from_static(VALUE)).unwrap();
    assert!(again.starts_with(b"k8s:enc:secretbox:v1:new:"));
    let after = layer(&text("secrets", &[&provider("secretbox", &[new])]));
    assert_eq!(open(&after, KEY, &again), Ok((VALUE.to_vec(), false)));
    assert_eq!(
        open(&after, KEY, &sealed),
        Err("no matching key was found for the provided transformer".to_owned())
    );
    // Two keys of one name, the way some rotate.
    let same = layer(&text(
        "secrets",
        &[&provider("aesgcm", &[("k", 1, 32)]), &provider("aesgcm", &[("k", 32, 32)])],
    ));
    assert_eq!(open(&same, KEY, &decoded(THEIRS[2].2)), Ok((VALUE.to_vec(), true)));
}

#[test]
fn a_sealed_value_must_not_pass_for_a_plain_one() {
    let sealed = decoded(THEIRS[2].2);
    let elsewhere = layer(&text("configmaps", &["identity: {}"]));
    assert!(open(&elsewhere, KEY, &sealed).unwrap_err().contains("tried to read encrypted data"));
    let away = layer(&text("secrets", &["identity: {}", &provider("aesgcm", &[("k", 32, 32)])]));
    assert_eq!(open(&away, KEY, &sealed), Ok((VALUE.to_vec(), true)));
    assert_eq!(away.encode(KEY, Bytes::from_static(VALUE)).unwrap(), VALUE);
    assert!(Unsealed.decode(KEY, sealed.into()).is_err());
}

#[test]
fn the_first_rule_that_names_a_resource_is_its_rule() {
    let keys = provider("aescbc", &[("k", 16, 16)]);
    let prefix = |resources: &str, key: &str| {
        let sealed = layer(&text(resources, &[&keys])).encode(key, Bytes::from_static(VALUE)).unwrap();
        sealed.starts_with(b"k8s:enc:aescbc:v1:k:")
    };
    let widget = "/registry/example.com/widgets/d/a";
    assert!(
        prefix("secrets, widgets.example.com", widget) && !prefix("secrets, widgets.example.org", widget)
    );
    assert!(prefix("'*.example.com'", widget) && !prefix("'*.example.com'", KEY));
    assert!(prefix("'*.'", KEY) && !prefix("'*.'", widget));
    assert!(prefix("'*.*'", KEY) && prefix("'*.*'", widget));
}

#[test]
fn a_configuration_that_cannot_be_obeyed_is_refused_in_upstreams_words() {
    let why = |text: &str| config::parse(text).map(|_| ()).unwrap_err().to_string();
    let gcm = |length| provider("aesgcm", &[("k", 1, length)]);
    assert!(
        why(&text("secrets", &[&gcm(20)]))
            .ends_with("secret is not of the expected length, got 20, expected one of [16 24 32]")
    );
    assert!(why(&text("secrets", &["aesgcm: {keys: []}"])).contains("at least one"));
    assert!(
        why(&text("secrets", &["aesgcm: {keys: [{name: k, secret: '!'}]}"]))
            .ends_with("secrets must be base64 encoded")
    );
    assert!(
        why(&text("secrets", &["identity: {}\n    secretbox: {keys: []}"]))
            .contains("more than one provider")
    );
    assert!(
        why(&text("'*'", &["identity: {}"]))
            .contains("use '*.' to encrypt all the resources from core API group")
    );
    assert!(why(&text("Secrets", &["identity: {}"])).contains("should not contain capital letters"));
    assert!(why(&text("secrets", &["rot13: {}"])).contains("not understood"));
    assert!(why(&text("", &["identity: {}"])).starts_with("resources[0].resources"));
}

#[test]
fn two_plugins_must_not_have_one_name_nor_a_resource_two_rules() {
    let why = |text: &str| config::parse(text).map(|_| ()).err().map(|why| why.to_string());
    let kms = "kms: {apiVersion: v2, name: k, endpoint: 'unix:///k'}";
    let twice = "resources[0].providers[1].kms.name: Invalid value: \"k\": duplicate KMS provider name k, names must be unique";
    assert_eq!(why(&text("secrets", &[kms, kms])).unwrap(), twice);
    let identity =
        "- resources: [secrets]\n  providers: [{kms: {apiVersion: v2, name: k, endpoint: 'unix:///l'}}]\n";
    let other = format!("{}{identity}", text("configmaps", &[kms]));
    assert!(why(&other).unwrap().starts_with("resources[1].providers[0].kms.name: "), "another rule's, too");

    let names = |names: &str| why(&text(names, &["identity: {}"]));
    let same = "resources[0].resources: Invalid value: [\"secrets\",\"secrets\"]: the same resource cannot be specified multiple times";
    assert_eq!(names("secrets, secrets").unwrap(), same);
    for overlapping in ["secrets, '*.'", "'*.apps', deployments.apps", "'*.*', secrets", "secrets, '*.*'"] {
        assert!(names(overlapping).unwrap().contains("using overlapping resources"), "{overlapping}");
    }
    assert_eq!(names("secrets, '*.apps'"), None);
    assert!(
        names("'pods.*'").unwrap().ends_with("encrypting the same resource across groups is not supported")
    );

    let second = |first: &str, second: &str| {
        why(&format!(
            "{}- resources: [{second}]\n  providers: [{{identity: {{}}}}]\n",
            text(first, &["identity: {}"])
        ))
    };
    let masked = "resources[1].resources: resource \"secrets\" is masked by earlier rule \"*.\"";
    assert_eq!(second("'*.'", "secrets").unwrap(), masked);
    assert!(second("'*.*'", "'*.apps'").unwrap().ends_with("is masked by earlier rule \"*.*\""));
    assert_eq!(second("secrets", "'*.'"), None, "the narrower one first");
}

#[test]
fn a_secret_must_not_be_quoted_in_an_error() {
    let file = text("secrets", &["aesgcm: {keys: [{name: k, secret: c2VjcmV0, other: c2VjcmV0}]}"]);
    let error = config::parse(&file).map(|_| ()).unwrap_err().to_string();
    assert!(!error.contains("c2VjcmV0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_used_and_a_wrong_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("c.yaml");
    let write = |keys: &[(&str, u8, usize)]| {
        std::fs::write(&path, text("secrets", &[&provider("secretbox", keys)])).unwrap()
    };
    write(&[("one", 1, 32)]);
    let layer = Arc::new(Encryption::load(&path, "/registry", resource_of).unwrap());
    let scope = supervise::Scope::new(
        &supervise::Supervisor::default(),
        "",
        &tokio_util::sync::CancellationToken::new(),
    );
    scope.keep(layer.reload(path.clone()));
    let seals_with = |name: &str| {
        let sealed = layer.encode(KEY, Bytes::from_static(VALUE)).unwrap();
        sealed.starts_with(format!("k8s:enc:secretbox:v1:{name}:").as_bytes())
    };
    tokio::time::sleep(LOOK * 2).await;
    std::fs::write(&path, "kind: Other").unwrap();
    tokio::time::sleep(LOOK * 2).await;
    assert!(seals_with("one"));
    let endpoint = format!("unix://{}", dir.path().join("none.sock").display());
    let silent = format!("kms: {{apiVersion: v2, name: k, endpoint: {endpoint:?}}}");
    std::fs::write(&path, text("secrets", &[&silent, &provider("secretbox", &[("one", 1, 32)])])).unwrap();
    tokio::time::sleep(LOOK * 2).await;
    assert!(seals_with("one"), "a plugin that does not answer must not replace what seals");
    write(&[("two", 2, 32), ("one", 1, 32)]);
    while !seals_with("two") {
        tokio::time::sleep(LOOK).await;
    }
    assert!(Encryption::load(&dir.path().join("none"), "/registry", resource_of).is_err());
}

proptest! {
    #[test]
    fn what_is_sealed_opens_and_what_is_changed_does_not(value: Vec<u8>, at: prop::sample::Index, kind in 0..3usize) {
        let name = ["aesgcm", "aescbc", "secretbox"][kind];
        let layer = layer(&text("secrets", &[&provider(name, &[("k", 3, 32)])]));
        let sealed = layer.encode(KEY, value.clone().into()).unwrap();
        prop_assert_eq!(open(&layer, KEY, &sealed), Ok((value, false)));
        let mut broken = sealed.to_vec();
        let at = at.index(broken.len());
        broken[at] ^= 1;
        // CBC has no tag; that it gives an answer is all there is to ask of it.
        let opened = open(&layer, KEY, &broken);
        prop_assert!(name == "aescbc" || opened.is_err() || !broken.starts_with(b"k8s:enc:"));
    }

    #[test]
    fn junk_is_an_error_not_a_panic(bytes: Vec<u8>, kind in 0..3usize) {
        let name = ["aesgcm", "aescbc", "secretbox"][kind];
        let layer = layer(&text("secrets", &[&provider(name, &[("k", 3, 32)])]));
        let stored = [format!("k8s:enc:{name}:v1:k:").as_bytes(), &bytes].concat();
        let _ = open(&layer, KEY, &stored);
    }
}
