//! An OpenID Connect issuer on loopback, as a test wants it: it serves what it is told to, and signs
//! whatever it is given.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use boxoffice::config::{AuthMode, Config};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Whom the tokens are for.
pub(crate) const AUDIENCE: &str = "boxoffice-tests";

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key that signs.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    Es(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn rsa() -> Self {
        let pem = include_str!("fixtures/issuer_rsa.pem");
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        Self::Rsa(RsaKeyPair::from_der(&STANDARD.decode(text).unwrap()).unwrap())
    }

    pub(crate) fn es() -> Self {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self::Es(EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).unwrap())
    }

    pub(crate) fn ed() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    pub(crate) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Es(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Es(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key, as a set lists it.
    pub(crate) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Rsa(key) => {
                let numbers: RsaPublicKeyComponents<Vec<u8>> = key.public().into();
                json!({
                    "kty": "RSA", "kid": id, "use": "sig", "alg": "RS256",
                    "n": base64(numbers.n), "e": base64(numbers.e),
                })
            }
            Self::Es(key) => {
                let point = key.public_key().as_ref();
                json!({
                    "kty": "EC", "crv": "P-256", "kid": id,
                    "x": base64(&point[1..33]), "y": base64(&point[33..]),
                })
            }
            Self::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": base64(key.public_key())})
            }
        }
    }

    /// A token with this head and these claims, whatever they say.
    pub(crate) fn token(&self, head: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", base64(head.to_string()), base64(claims.to_string()));
        let signature = base64(self.sign(text.as_bytes()));
        format!("{text}.{signature}")
    }
}

pub(crate) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What an issuer answers.
#[derive(Clone)]
pub(crate) enum Answer {
    /// The set with these keys.
    Keys(Vec<Value>),
    /// This, with status 200.
    Text(String),
    /// Status 500.
    Failure,
}

/// An issuer.
pub(crate) struct Issuer {
    address: SocketAddr,
    pub(crate) signer: Signer,
    answer: Arc<Mutex<Answer>>,
    /// How often the set was asked for.
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Issuer {
    /// One that signs with this key, called `k1`.
    pub(crate) async fn start(signer: Signer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Answer::Keys(vec![signer.jwk("k1")])));
        let asked = Arc::new(AtomicUsize::new(0));
        let served = (answer.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, asked) = served.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let head = String::from_utf8_lossy(&head);
                    let (status, body) = if head.starts_with("GET /.well-known/openid-conf") {
                        let issuer = format!("http://{address}");
                        let document =
                            json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")});
                        ("200 OK", document.to_string())
                    } else {
                        asked.fetch_add(1, Ordering::SeqCst);
                        match answer.lock().unwrap().clone() {
                            Answer::Keys(keys) => ("200 OK", json!({"keys": keys}).to_string()),
                            Answer::Text(text) => ("200 OK", text),
                            Answer::Failure => ("500 Oh", String::new()),
                        }
                    };
                    let text = format!(
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(text.as_bytes()).await;
                });
            }
        });
        Self { address, signer, answer, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers so from now on.
    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Has a service know the people of this issuer.
    pub(crate) fn configure(&self, config: &mut Config) {
        config.auth.mode = AuthMode::Jwt;
        config.auth.issuer = Some(self.url());
        config.auth.audience = Some(AUDIENCE.into());
    }

    /// The claims of a good token for somebody.
    pub(crate) fn claims(&self, sub: &str) -> Value {
        let now = now_seconds();
        json!({"iss": self.url(), "aud": AUDIENCE, "sub": sub, "iat": now, "exp": now + 600})
    }

    pub(crate) fn head(&self) -> Value {
        json!({"alg": self.signer.algorithm(), "typ": "JWT", "kid": "k1"})
    }

    /// A token with these claims.
    pub(crate) fn signed(&self, claims: &Value) -> String {
        self.signer.token(&self.head(), claims)
    }

    /// A good token for somebody.
    pub(crate) fn token(&self, sub: &str) -> String {
        self.signed(&self.claims(sub))
    }
}
