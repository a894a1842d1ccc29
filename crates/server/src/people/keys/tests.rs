use super::*;

/// A 2,048-bit modulus that was made for this test.
const MODULUS: &str = "uTqJgN-wvkl9WJX3YKtyXbkqRqwHqUvXqv1lVHJFTHBWmYtMWgcnkKdu7kGkRqVQ6c5mX6aE0OZzZ2rVqVZ7w1Xh6oWkCz0oQfYyX3k8S5m4s0bC3Bz1Zr2d1o1cG5Yq0T0VbHh8XQqk9sQq2nTtYVQ5m0e8u6sN1mQ7hJfQ2nR1rK3hD0wHcVb3m8Yw4z0ZtF3yJ6yq3rF4Wc2mLkR8nV5tQ0pG7hS1dXfUeA9iBjCkDlEmFnGoHpIqJrKsLtMuNvOwPxQyRzSATBUCVDWEXFYGZHaIbJcKdLeMfNgOhPiQjRkSlTmUnVoWpXqYrZ";
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
