//! What is signed is believed, by every method, and nothing else is.

use std::process::Command;

use super::*;
use crate::auth::words::TokenWords;

/// Key files made by openssl; without that program the test is skipped.
fn openssl(folder: &Path, arguments: &[&str]) -> bool {
    let made = Command::new("openssl").args(arguments).current_dir(folder).output();
    made.is_ok_and(|made| made.status.success())
}

fn load(text: &str) -> Result<Jwt, TokenError> {
    let words = TokenWords::parse(text).unwrap();
    let TokenWords::Jwt(words) = words else { panic!("{words:?}") };
    Jwt::load(&words)
}

fn alice() -> Identity {
    Identity { user: "alice".to_owned(), revision: 17 }
}

/// CB-76: what is signed is believed until its time is over, and nothing else is.
fn check(signs: &Jwt, checks: &Jwt) {
    let token = signs.sign(&alice(), 1000).unwrap();
    assert_eq!(checks.verify(&token, 1000), Some(alice()));
    assert_eq!(checks.verify(&token, 1000 + 299), Some(alice()));
    assert_eq!(checks.verify(&token, 1000 + 300), None);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let claims = encode(r#"{"exp":9999999999,"revision":17,"username":"root"}"#);
    assert_eq!(checks.verify(&format!("{header}.{claims}.{signature}"), 1000), None);
    let none = encode(r#"{"alg":"none","typ":"JWT"}"#);
    assert_eq!(checks.verify(&format!("{none}.{claims}."), 1000), None);
    for bad in ["", ".", "..", "a.b", "a.b.c", &format!("{signed}.")] {
        assert_eq!(checks.verify(bad, 1000), None, "{bad}");
    }
}

#[test]
fn secrets_sign_and_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "a secret of some length").unwrap();
    for method in ["HS256", "HS384", "HS512"] {
        let jwt = load(&format!("jwt,sign-method={method},priv-key={}", file.display())).unwrap();
        check(&jwt, &jwt);
    }
    // Made by golang-jwt's method, that is RFC 7519's.
    let jwt = load(&format!("jwt,sign-method=HS256,priv-key={}", file.display())).unwrap();
    let token = jwt.sign(&alice(), 1000).unwrap();
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!(parts[0], "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9");
    let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    assert_eq!(&claims[..], br#"{"exp":1300,"revision":17,"username":"alice"}"#);
}

#[test]
fn pairs_sign_and_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let made = openssl(path, &["genrsa", "-out", "rsa.pem", "2048"])
        && openssl(path, &["genrsa", "-out", "other.pem", "2048"])
        && openssl(path, &["rsa", "-in", "other.pem", "-pubout", "-out", "other.pub"])
        && openssl(path, &["genpkey", "-algorithm", "ed25519", "-out", "ed.pem"])
        && ["prime256v1", "secp384r1", "secp521r1"].iter().all(|curve| {
            let file = format!("{curve}.pem");
            openssl(path, &["ecparam", "-name", curve, "-genkey", "-noout", "-out", &file])
        });
    if !made {
        return;
    }
    let methods = [
        ("rsa", &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..]),
        ("prime256v1", &["ES256"]),
        ("secp384r1", &["ES384"]),
        ("secp521r1", &["ES512"]),
        ("ed", &["EdDSA"]),
    ];
    for (name, methods) in methods {
        let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
        assert!(openssl(path, &["pkey", "-in", &private, "-pubout", "-out", &public]));
        let (private, public) = (path.join(private), path.join(public));
        for method in methods {
            let options = format!("jwt,sign-method={method}");
            let signs = load(&format!("{options},priv-key={}", private.display())).unwrap();
            let checks = load(&format!("{options},pub-key={}", public.display())).unwrap();
            check(&signs, &checks);
            check(&signs, &signs);
            assert_eq!(checks.sign(&alice(), 0), Err(ProposeError::VerifyOnly));
            let both =
                format!("{options},priv-key={},pub-key={}", private.display(), public.display());
            assert!(load(&both).is_ok(), "{method}");
        }
    }
    let (rsa, other) = (path.join("rsa.pem"), path.join("other.pub"));
    let both =
        format!("jwt,sign-method=RS256,priv-key={},pub-key={}", rsa.display(), other.display());
    assert!(matches!(load(&both), Err(TokenError::KeyMismatch)));
    let wrong = format!("jwt,sign-method=ES256,priv-key={}", rsa.display());
    assert!(matches!(load(&wrong), Err(TokenError::Key { kind: "private", .. })));
    let wrong = format!("jwt,sign-method=ES256,pub-key={}", other.display());
    assert!(matches!(load(&wrong), Err(TokenError::Key { kind: "public", .. })));
}

#[test]
fn a_method_and_its_key_must_be_given() {
    assert!(matches!(load("jwt"), Err(TokenError::Method(_))));
    assert!(matches!(load("jwt,sign-method=none"), Err(TokenError::Method(_))));
    assert!(matches!(load("jwt,sign-method=HS256"), Err(TokenError::KeyMissing { .. })));
    assert!(matches!(load("jwt,sign-method=RS256"), Err(TokenError::KeyMissing { .. })));
    let missing = load("jwt,sign-method=RS256,priv-key=/there/is/none");
    assert!(matches!(missing, Err(TokenError::File { .. })));
}

/// A11: another method with the same key, headers that point to keys elsewhere, and tokens beyond
/// any size.
#[test]
fn strange_tokens_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "a secret of some length").unwrap();
    let jwt = |method: &str| {
        load(&format!("jwt,sign-method={method},priv-key={}", file.display())).unwrap()
    };
    let (checks, other) = (jwt("HS256"), jwt("HS512"));
    let token = other.sign(&alice(), 1000).unwrap();
    assert_eq!(checks.verify(&token, 1000), None, "signed with the same key by another method");
    let token = checks.sign(&alice(), 1000).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (_, claims) = signed.split_once('.').unwrap();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None","typ":"JWT"}"#,
        r#"{"alg":"hs256","typ":"JWT"}"#,
        r#"{"alg":["HS256"],"typ":"JWT"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"JWT","kid":"/dev/null"}"#,
        r#"{"alg":"HS256","typ":"JWT","jku":"http://evil.example/keys"}"#,
        r#"["HS256"]"#,
    ] {
        let header = encode(header);
        for signature in ["", signature] {
            let strange = format!("{header}.{claims}.{signature}");
            assert_eq!(checks.verify(&strange, 1000), None, "{strange}");
        }
    }
    let huge = "A".repeat(1 << 20);
    for strange in [format!("{huge}.{huge}.{huge}"), format!("{signed}.{huge}"), huge] {
        assert_eq!(checks.verify(&strange, 1000), None);
    }
}
