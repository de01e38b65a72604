use super::*;
use proptest::prelude::*;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn audiences(list: &[&str]) -> Vec<String> {
    list.iter().map(|a| (*a).to_owned()).collect()
}

fn claims() -> Claims {
    let object = |name: &str| BoundObject { name: name.into(), uid: format!("uid-of-{name}") };
    Claims {
        aud: audiences(&[ISSUER]),
        exp: NOW + 3607,
        iat: Some(NOW),
        iss: ISSUER.into(),
        jti: "5f0c".into(),
        kubernetes: KubernetesClaims {
            namespace: "default".into(),
            node: Some(object("n1")),
            pod: Some(object("web")),
            secret: None,
            serviceaccount: object("default"),
            warnafter: Some(NOW + 3000),
        },
        nbf: Some(NOW),
        sub: "system:serviceaccount:default:default".into(),
    }
}

fn pair() -> (SigningKey, Verifier) {
    let key = SigningKey::generate().unwrap();
    let verifier = Verifier { keys: vec![key.public().clone()], issuers: vec![ISSUER.into()] };
    (key, verifier)
}

#[test]
fn a_token_comes_back_as_it_was_signed() {
    let (key, verifier) = pair();
    let token = key.sign(&claims()).unwrap();
    let got = verifier.verify(&token, &audiences(&["other", ISSUER]), at(NOW)).unwrap();
    assert_eq!(got.claims, claims());
    assert_eq!(got.audiences, [ISSUER]);
}

#[test]
fn time_and_audience_are_checked_with_a_minute_of_leeway() {
    let (key, verifier) = pair();
    let token = key.sign(&claims()).unwrap();
    let check = |aud: &str, second| verifier.verify(&token, &audiences(&[aud]), at(second)).map(|_| ());
    assert_eq!(check(ISSUER, NOW + 3607 + 60), Ok(()));
    assert_eq!(check(ISSUER, NOW + 3607 + 61), Err(TokenError::Expired));
    assert_eq!(check(ISSUER, NOW - 60), Ok(()));
    assert_eq!(check(ISSUER, NOW - 61), Err(TokenError::NotYetValid));
    let wrong = check("vault", NOW).unwrap_err();
    assert_eq!(
        wrong.to_string(),
        format!("token audiences [\"{ISSUER}\"] is invalid for the target audiences [\"vault\"]")
    );
}

#[test]
fn a_token_of_a_secret_says_what_upstreams_does_and_is_no_other_token() {
    let (key, verifier) = pair();
    let claims = LegacyClaims::new("ns", "sa", "1", "sa-token");
    let token = key.sign_legacy(&claims).unwrap();
    assert_eq!(verifier.verify_legacy(&token), Ok(claims));
    let body = BASE64URL.decode(token.split('.').nth(1).unwrap()).unwrap();
    let expected = concat!(
        r#"{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"ns","#,
        r#""kubernetes.io/serviceaccount/secret.name":"sa-token","#,
        r#""kubernetes.io/serviceaccount/service-account.name":"sa","#,
        r#""kubernetes.io/serviceaccount/service-account.uid":"1","sub":"system:serviceaccount:ns:sa"}"#
    );
    assert_eq!(String::from_utf8(body).unwrap(), expected);
    assert_eq!(verifier.verify(&token, &audiences(&[ISSUER]), at(NOW)).unwrap_err(), TokenError::Foreign);
    let bound = key.sign(&self::claims()).unwrap();
    assert_eq!(verifier.verify_legacy(&bound).unwrap_err(), TokenError::Foreign);
    let stranger =
        SigningKey::generate().unwrap().sign_legacy(&LegacyClaims::new("ns", "sa", "1", "t")).unwrap();
    assert_eq!(verifier.verify_legacy(&stranger).unwrap_err(), TokenError::Signature);
}

#[test]
fn foreign_tokens_are_left_to_others() {
    let (key, verifier) = pair();
    let theirs = key.sign(&Claims { iss: "https://accounts.example.com".into(), ..claims() }).unwrap();
    for token in [theirs.as_str(), "", "a.b", "a.b.c.d", "opaque", "abcdef.0123456789abcdef"] {
        let got = verifier.verify(token, &audiences(&[ISSUER]), at(NOW));
        assert_eq!(got.unwrap_err(), TokenError::Foreign, "{token}");
    }
}

#[test]
fn unsigned_and_otherwise_signed_tokens_must_not_pass() {
    let (key, verifier) = pair();
    let token = key.sign(&claims()).unwrap();
    let (_, rest) = token.split_once('.').unwrap();
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"ES256","kid":"another"}"#] {
        let forged = format!("{}.{rest}", BASE64URL.encode(header));
        let got = verifier.verify(&forged, &audiences(&[ISSUER]), at(NOW));
        assert_eq!(got.unwrap_err(), TokenError::Signature, "{header}");
    }
    let other = SigningKey::generate().unwrap().sign(&claims()).unwrap();
    let got = verifier.verify(&other, &audiences(&[ISSUER]), at(NOW));
    assert_eq!(got.unwrap_err(), TokenError::Signature);
}

#[test]
fn an_old_key_still_verifies() {
    let (old, _) = pair();
    let (new, mut verifier) = pair();
    let file = format!("{}{}", new.public().to_pem(), old.public().to_pem());
    verifier.keys = VerifyingKey::list_from_pem(&file).unwrap();
    let token = old.sign(&claims()).unwrap();
    assert!(verifier.verify(&token, &audiences(&[ISSUER]), at(NOW)).is_ok());
}

#[test]
fn a_key_of_no_use_must_not_take_the_others_with_it() {
    let (key, _) = pair();
    let (public, empty) = (key.public().to_pem(), crate::pem::encode("PUBLIC KEY", &[0x30, 0]));
    let broken = ["CERTIFICATE", "EC PRIVATE KEY"].map(|label| crate::pem::encode(label, &[0x30, 0]));
    let file = format!("{empty}{}{public}{}", broken[0], broken[1]);
    assert_eq!(VerifyingKey::list_from_pem(&file).unwrap(), [key.public().clone()]);
    for useless in [&empty, &broken[0], &broken[1]] {
        assert!(VerifyingKey::list_from_pem(useless).is_err(), "{useless}");
    }
}

/// Keys that openssl made: kubeadm writes RSA keys as PKCS #1, Go writes ECDSA keys as SEC 1.
const KEYS: [(&str, &str); 4] = [
    ("RS256", include_str!("../../tests/data/rsa-pkcs1.pem")),
    ("RS256", include_str!("../../tests/data/rsa-pkcs8.pem")),
    ("ES256", include_str!("../../tests/data/p256-sec1.pem")),
    ("ES384", include_str!("../../tests/data/p384-sec1.pem")),
];

#[test]
fn a_key_of_a_stock_cluster_must_not_be_refused() {
    for (algorithm, pem) in KEYS {
        let key = SigningKey::from_pem(pem).unwrap();
        assert_eq!(key.public().algorithm(), algorithm);
        let token = key.sign(&claims()).unwrap();
        // As public key and as private key, both of which upstream's flag takes.
        for file in [key.public().to_pem(), pem.to_owned()] {
            let keys = VerifyingKey::list_from_pem(&file).unwrap();
            assert_eq!(keys, [key.public().clone()]);
            let verifier = Verifier { keys, issuers: vec![ISSUER.into()] };
            assert!(verifier.verify(&token, &audiences(&[ISSUER]), at(NOW)).is_ok(), "{algorithm}");
        }
    }
    let keys = VerifyingKey::list_from_pem(include_str!("../../tests/data/rsa-ca.pem")).unwrap();
    assert_eq!(keys, [SigningKey::from_pem(KEYS[0].1).unwrap().public().clone()], "of a certificate");
}

#[test]
fn an_algorithm_that_is_not_the_keys_must_not_pass() {
    let keys: Vec<SigningKey> = KEYS.iter().map(|(_, pem)| SigningKey::from_pem(pem).unwrap()).collect();
    for key in &keys {
        let token = key.sign(&claims()).unwrap();
        let (header, rest) = token.split_once('.').unwrap();
        let header = String::from_utf8(BASE64URL.decode(header).unwrap()).unwrap();
        let verifier = Verifier { keys: vec![key.public().clone()], issuers: vec![ISSUER.into()] };
        for other in ["RS384", "PS256", "HS256", "none"] {
            let forged = header.replace(key.public().algorithm(), other);
            let forged = format!("{}.{rest}", BASE64URL.encode(forged));
            let got = verifier.verify(&forged, &audiences(&[ISSUER]), at(NOW));
            assert_eq!(got.unwrap_err(), TokenError::Signature, "{other}");
        }
    }
}

#[test]
fn a_key_set_says_every_kind_of_key() {
    let keys: Vec<VerifyingKey> =
        KEYS.iter().map(|(_, pem)| SigningKey::from_pem(pem).unwrap().public().clone()).collect();
    let set = crate::openid::key_set(&keys);
    let told: Vec<_> = set["keys"].as_array().unwrap().iter().map(|k| (&k["kty"], &k["alg"])).collect();
    assert_eq!(told[0], (&"RSA".into(), &"RS256".into()));
    assert_eq!(set["keys"][0]["e"], "AQAB");
    assert_eq!((&set["keys"][3]["crv"], told[3]), (&"P-384".into(), (&"EC".into(), &"ES384".into())));
    let document = crate::openid::configuration(ISSUER, "https://jwks", &keys);
    assert_eq!(
        document["id_token_signing_alg_values_supported"],
        serde_json::json!(["ES256", "ES384", "RS256"])
    );
}

#[test]
fn dates_may_have_fractions_and_one_audience_may_be_bare() {
    let text = format!(r#"{{"iss":"{ISSUER}","aud":"{ISSUER}","exp":1800000000.9,"sub":"s"}}"#);
    let got: Claims = serde_json::from_str(&text).unwrap();
    assert_eq!((got.exp, got.aud), (NOW, vec![ISSUER.to_owned()]));
}

proptest! {
    #[test]
    fn no_changed_byte_passes(position in 0usize..2000, flip in 1u8..=255) {
        let (key, verifier) = pair();
        let token = key.sign(&claims()).unwrap();
        let mut bytes = token.into_bytes();
        let position = position % bytes.len();
        bytes[position] ^= flip;
        let Ok(changed) = String::from_utf8(bytes) else { return Ok(()) };
        // The last character of the signature carries unused bits, which strict base64 refuses as well.
        prop_assert!(verifier.verify(&changed, &audiences(&[ISSUER]), at(NOW)).is_err());
    }
}
