//! What a registry is like, before it runs.

use std::time::Duration;

use super::TestRegistry;
use super::server::Servers;

/// Who may use the registry.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everyone.
    #[default]
    None,
    /// HTTP basic authentication.
    Basic {
        /// The one user.
        user: String,
        /// The user's password.
        password: String,
    },
    /// Tokens from the endpoint `/token` of the registry itself, with the repository and the action as their scope.
    Bearer {
        /// Who gets tokens; `None` gives them to everyone who asks without credentials. The refresh-token grant takes the
        /// password as the refresh token (what Docker's configuration calls an identity token).
        user: Option<(String, String)>,
        /// How long a token is good; the answer states it in whole seconds, rounded down.
        expires_in: Duration,
        /// Which field of the answer holds the token.
        token_in: TokenIn,
    },
}

impl Auth {
    /// Tokens for everyone, good for five minutes.
    pub fn anonymous_bearer() -> Self {
        Self::Bearer { user: None, expires_in: Duration::from_secs(300), token_in: TokenIn::Token }
    }

    /// Tokens for one user, good for five minutes.
    pub fn bearer(user: &str, password: &str) -> Self {
        let user = Some((user.into(), password.into()));
        Self::Bearer { user, expires_in: Duration::from_secs(300), token_in: TokenIn::Token }
    }

    /// HTTP basic authentication.
    pub fn basic(user: &str, password: &str) -> Self {
        Self::Basic { user: user.into(), password: password.into() }
    }
}

/// The field of a token answer. The Docker specification has `token`, OAuth 2 `access_token`; registries send either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenIn {
    /// `token`
    #[default]
    Token,
    /// `access_token`
    AccessToken,
    /// Both, as Docker Hub does.
    Both,
}

/// How blob requests are redirected to storage.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// A URL is good for this long.
    pub expire_after: Option<Duration>,
    /// A URL is good for this many requests.
    pub expire_after_uses: Option<u32>,
    /// Storage is another host (a second port), which refuses requests with an `Authorization` header, as S3 does.
    /// Otherwise it is the registry's own host.
    pub other_host: bool,
    /// What a URL that is no longer good answers.
    pub expired: Expired,
    /// The status of the redirect itself.
    pub status: u16,
}

impl Default for Redirect {
    /// To another host, with URLs that stay good.
    fn default() -> Self {
        Self {
            expire_after: None,
            expire_after_uses: None,
            other_host: true,
            expired: Expired::Forbidden,
            status: 307,
        }
    }
}

/// What storage says to a URL whose signature has expired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expired {
    /// 403 with S3's `AccessDenied`, "Request has expired".
    #[default]
    Forbidden,
    /// 400 with S3's `ExpiredToken`: the credentials that signed the URL have expired.
    ExpiredToken,
    /// 401 without a challenge.
    Unauthorized,
}

/// Describes a registry; see [`TestRegistry::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) referrers_api: bool,
    pub(super) referrers_page: Option<usize>,
    pub(super) auth: Auth,
    pub(super) expired_token_status: u16,
    pub(super) basic_for_bad_tokens: bool,
    pub(super) public: Option<String>,
    pub(super) redirect: Option<Redirect>,
    pub(super) latency: Duration,
    pub(super) connect_latency: Duration,
    pub(super) bandwidth: Option<u64>,
    pub(super) relative_locations: bool,
    pub(super) check_references: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            referrers_api: true,
            referrers_page: None,
            auth: Auth::None,
            expired_token_status: 401,
            basic_for_bad_tokens: false,
            public: None,
            redirect: None,
            latency: Duration::ZERO,
            connect_latency: Duration::ZERO,
            bandwidth: None,
            relative_locations: false,
            check_references: true,
        }
    }
}

impl Builder {
    /// Whether the referrers API exists (it does unless told otherwise). Without it the endpoint is 404 and pushing a
    /// manifest with a subject is not answered with `OCI-Subject`.
    #[must_use]
    pub fn referrers_api(mut self, on: bool) -> Self {
        self.referrers_api = on;
        self
    }

    /// At most so many referrers per answer, with a `Link` to the next page.
    #[must_use]
    pub fn referrers_page(mut self, size: usize) -> Self {
        self.referrers_page = Some(size.max(1));
        self
    }

    /// Who may use the registry.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// The status for a token that has expired: 401 with a challenge, or 403, which ECR answers without one and with the
    /// message clients know it by.
    #[must_use]
    pub fn expired_token_status(mut self, status: u16) -> Self {
        self.expired_token_status = status;
        self
    }

    /// A token that is not good for a request is answered by a challenge for Basic authentication, as Harbor does. Only a
    /// bare request gets the one for a token.
    #[must_use]
    pub fn basic_for_bad_tokens(mut self, on: bool) -> Self {
        self.basic_for_bad_tokens = on;
        self
    }

    /// Repositories whose names begin like this can be read by everyone: without a login, the token server gives tokens
    /// that are good for these alone.
    #[must_use]
    pub fn public(mut self, prefix: &str) -> Self {
        self.public = Some(prefix.into());
        self
    }

    /// Answers GETs of blobs with a redirect to storage. HEAD is answered by the registry itself.
    #[must_use]
    pub fn redirect_blobs(mut self, redirect: Redirect) -> Self {
        self.redirect = Some(redirect);
        self
    }

    /// Time before the first byte of each response.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Time, on top of the latency, before the first request of each new connection is looked at.
    #[must_use]
    pub fn connect_latency(mut self, latency: Duration) -> Self {
        self.connect_latency = latency;
        self
    }

    /// Bytes per second for all response bodies together, like one link.
    #[must_use]
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.bandwidth = Some(bytes_per_second.max(1));
        self
    }

    /// `Location` as a path (which the specification allows) rather than a URL.
    #[must_use]
    pub fn relative_locations(mut self, on: bool) -> Self {
        self.relative_locations = on;
        self
    }

    /// Whether a manifest PUT over HTTP is refused when a blob or manifest it refers to is missing (as Docker's registry
    /// does; on unless told otherwise). The subject may always be missing.
    #[must_use]
    pub fn check_references(mut self, on: bool) -> Self {
        self.check_references = on;
        self
    }

    /// Runs the registry on the current tokio runtime.
    ///
    /// # Panics
    /// If no port can be bound.
    pub async fn start(self) -> TestRegistry {
        let (shared, servers) = Servers::start(self, tokio::runtime::Handle::current(), None);
        TestRegistry { shared, servers }
    }

    /// Runs the registry on threads of its own, for callers without a runtime.
    ///
    /// # Panics
    /// If no port can be bound or no thread be started.
    pub fn start_blocking(self) -> TestRegistry {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("test-registry")
            .enable_all()
            .build()
            .expect("runtime");
        let (shared, servers) = Servers::start(self, runtime.handle().clone(), Some(runtime));
        TestRegistry { shared, servers }
    }
}
