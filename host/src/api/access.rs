//! Rule for which requests are answered: tokens, and the scope that each route demands.

use std::fmt;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use regraft_model::error_kind::ErrorKind;
use sha2::{Digest as _, Sha256};

use super::connections::{Caller, Standing};
use super::problem::problem;
use crate::environment::real::random;

/// Challenge of an answer to a request without the right token.
pub(super) const CHALLENGE: &str = r#"Bearer realm="regraft""#;

/// Right to command a host, or to read from it. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Returns a token with a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns a new token: 256 random bits, as 64 hex digits.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:032x}{:032x}", random(), random()))
    }

    /// Returns its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Set of requests that a token permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Requests that change nothing.
    Read,
    /// Every request.
    Admin,
}

/// Tokens of a host, each with its scope.
#[derive(Debug, Clone)]
pub struct Access {
    /// SHA-256 of the token with every right.
    admin: [u8; 32],
    /// SHA-256 of the token for reading, where there is one.
    read: Option<[u8; 32]>,
}

impl Access {
    /// Returns the rule that a request must carry one of the tokens.
    #[must_use]
    pub fn new(admin: &Token, read: Option<&Token>) -> Self {
        let digest = |token: &Token| Sha256::digest(token.text()).into();
        Self {
            admin: digest(admin),
            read: read.map(digest),
        }
    }

    /// Returns the scope of a request; `None` where it has no token, or a wrong one.
    fn scope(&self, headers: &HeaderMap) -> Option<Scope> {
        let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = given.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("Bearer") {
            return None;
        }
        // Digests are compared, so that the time it takes tells nothing of the token.
        let given: [u8; 32] = Sha256::digest(token.trim()).into();
        if given == self.admin {
            return Some(Scope::Admin);
        }
        (self.read == Some(given)).then_some(Scope::Read)
    }
}

/// Refuses requests without a token, those whose token does not allow them, and those of web pages, before a body is read.
///
/// A page in a browser must not command a host on the same machine, even if it knows the token: browsers send the page's
/// origin, and other clients do not.
pub(super) async fn only_allowed(
    State(access): State<Access>,
    caller: Option<Extension<Caller>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(scope) = access.scope(request.headers()) else {
        return refused(
            StatusCode::UNAUTHORIZED,
            "this host demands a token, and the request has not brought the right one: set REGRAFT_TOKEN to the host's, or send `Authorization: Bearer TOKEN`",
        );
    };
    if let Some(Extension(caller)) = caller {
        caller.note_token(match scope {
            Scope::Read => Standing::Reader,
            Scope::Admin => Standing::Admin,
        });
    }
    if request.headers().contains_key(header::ORIGIN) {
        return refused(StatusCode::BAD_REQUEST, "requests from web pages are not answered");
    }
    if scope < needed(request.method()) {
        return refused(
            StatusCode::FORBIDDEN,
            "this token is for reading only, and the request would change something: use the host's own token (`serve --token-file`)",
        );
    }
    next.run(request).await
}

/// Returns the scope that a request needs.
fn needed(method: &Method) -> Scope {
    if method.is_safe() { Scope::Read } else { Scope::Admin }
}

fn refused(status: StatusCode, message: &str) -> Response {
    // A refusal of the host, except for a request that no client of its sends.
    let kind = match status {
        StatusCode::BAD_REQUEST => ErrorKind::Usage,
        _ => ErrorKind::Failed,
    };
    let mut response = problem(status, kind, message);
    if status == StatusCode::UNAUTHORIZED {
        let challenge = header::HeaderValue::from_static(CHALLENGE);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_a_scope() {
        let (admin, read) = (Token::new("a-secret"), Token::new("b-secret"));
        let (one, two) = (Access::new(&admin, None), Access::new(&admin, Some(&read)));
        let with = |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("a value"))]);
        for access in [&one, &two] {
            for good in ["Bearer a-secret", "bearer a-secret", "Bearer  a-secret "] {
                assert_eq!(access.scope(&with(good)), Some(Scope::Admin), "{good}");
            }
            for wrong in [
                "Bearer a-secre",
                "Bearer a-secrets",
                "a-secret",
                "Basic a-secret",
                "Bearer",
                "",
            ] {
                assert_eq!(access.scope(&with(wrong)), None, "{wrong}");
            }
            assert_eq!(access.scope(&HeaderMap::new()), None);
        }
        assert_eq!(one.scope(&with("Bearer b-secret")), None);
        assert_eq!(two.scope(&with("Bearer b-secret")), Some(Scope::Read));
    }

    #[test]
    fn only_reading_needs_no_more_than_the_scope_for_it() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(needed(&method), Scope::Read);
        }
        for method in [
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::CONNECT,
        ] {
            assert_eq!(needed(&method), Scope::Admin);
        }
    }

    #[test]
    fn a_token_is_random_and_not_shown() {
        let (one, two) = (Token::random(), Token::random());
        assert!(one != two && one.text().len() == 64);
        assert!(!format!("{one:?} {:?}", Access::new(&one, None)).contains(one.text()));
    }
}
