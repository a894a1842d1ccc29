use super::*;

/// A number of 2,048 bits.
const MODULUS: &str = "uQswVXqfxOkOM1h9osfsETZbgKXK7xQ5XoOozfIXPGGGq9D1Gj9kia7T-B1CZ4yx1vsgRWqPtNn-I0htkrfcASZLcJW63wQpTnOYveIHLFF2m8DlCi9UeZ7D6A0yV3yhxusQNVp_pMnuEzhdgqfM8RY7YIWqz_QZPmOIrdL3HEFmi7DV-h9EaY6z2P0iR2yRttsAJUpvlLneAyhNcpe84QYrUHWav-QJLlN4ncLnDDFWe6DF6g80WX6jyO0SN1yBpsvwFTpfhKnO8xg9Yoes0fYbQGWKr9T5HkNojbLX_CFGa5C12v8kSW6TuN0CJ0xxlrvgBSpPdJm-4wgtUnecCw";
const POINT: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn ids(set: &str) -> Result<Vec<(Option<String>, Algorithm)>, String> {
    let keys = parse(set.as_bytes(), "https://issuer.example", "boxoffice")?;
    Ok(keys.into_iter().map(|key| (key.id, key.algorithm)).collect())
}

#[test]
fn keys_of_no_use_are_passed_over() {
    let rsa = format!(r#"{{"kty": "RSA", "kid": "r", "n": "{MODULUS}", "e": "AQAB"}}"#);
    let ed = format!(r#"{{"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": "{POINT}"}}"#);
    let others = [
        r#"{"kty": "oct", "kid": "secret", "k": "AAAA", "alg": "HS256"}"#.to_owned(),
        r#"{"kty": "EC", "crv": "P-384", "kid": "p", "x": "AAAA", "y": "AAAA"}"#.to_owned(),
        r#"{"kty": "EC", "crv": "P-256", "kid": "no y", "x": "AAAA"}"#.to_owned(),
        r#"{"kty": "RSA", "kid": "no n"}"#.to_owned(),
        r#"{"kty": "RSA", "kid": "no text", "n": "!", "e": "?"}"#.to_owned(),
        r#"{"kty": 7}"#.to_owned(),
        "7".to_owned(),
        "null".to_owned(),
        format!(r#"{{"kty": "RSA", "use": "enc", "kid": "x", "n": "{MODULUS}", "e": "AQAB"}}"#),
        format!(r#"{{"kty": "RSA", "alg": "PS256", "kid": "y", "n": "{MODULUS}", "e": "AQAB"}}"#),
        format!(r#"{{"kty": "RSA", "alg": "HS256", "kid": "z", "n": "{MODULUS}", "e": "AQAB"}}"#),
        format!(r#"{{"kty": "OKP", "crv": "Ed25519", "alg": "RS256", "x": "{POINT}"}}"#),
    ]
    .join(", ");
    let set = format!(r#"{{"keys": [{others}, {rsa}, {ed}], "more": true}}"#);
    let expected =
        vec![(Some("r".to_owned()), Algorithm::RS256), (Some("e".to_owned()), Algorithm::EdDSA)];
    assert_eq!(ids(&set), Ok(expected));
    let none = ids(&format!(r#"{{"keys": [{others}]}}"#));
    assert_eq!(none, Err("the set has no key for RS256, ES256 or EdDSA".to_owned()));
}

#[test]
fn what_is_no_set_is_refused() {
    for text in ["", "<html><body>Sorry</body></html>", "[]", "{}", r#"{"keys": {}}"#, "null"] {
        let why = ids(text).unwrap_err();
        assert!(why.starts_with("no key set: "), "{text:?}: {why}");
    }
    let large = format!(r#"{{"keys": [], "x": "{}"}}"#, "x".repeat(10 << 20));
    assert_eq!(ids(&large), Err("the set is larger than 1048576 bytes".to_owned()));
}

#[test]
fn no_more_than_a_hundred_keys_are_kept() {
    let key = format!(r#"{{"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": "{POINT}"}}"#);
    let set = format!(r#"{{"keys": [{}]}}"#, vec![key; 300].join(", "));
    assert_eq!(ids(&set).map(|keys| keys.len()), Ok(KEYS_MAX));
}
