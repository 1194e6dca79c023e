//! Which function URL a request is for.

use http::Uri;

use crate::Settings;

const PATH_FORM: &str = "/_url/";

/// A request's target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Of the URL.
    pub id: String,
    /// Below the URL, as sent.
    pub path: String,
    /// The URL's host name.
    pub domain: String,
}

/// Reads the target from the path, where it has the path form, else from the host name.
pub(crate) fn read(host: &str, uri: &Uri, settings: &Settings) -> Option<Address> {
    let domain = |id: &str| format!("{id}.lambda-url.{}.{}", settings.region, settings.suffix);
    if let Some(rest) = uri.path().strip_prefix(PATH_FORM) {
        let (id, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        return is_id(id).then(|| Address { id: id.to_owned(), path: path.to_owned(), domain: domain(id) });
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name).to_ascii_lowercase();
    let (id, _) = name.split_once('.')?;
    (is_id(id) && name == domain(id)).then(|| Address {
        id: id.to_owned(),
        path: uri.path().to_owned(),
        domain: name.clone(),
    })
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn target(host: &str, uri: &str) -> Option<(String, String, String)> {
        let address = read(host, &uri.parse().unwrap(), &Settings::default())?;
        Some((address.id, address.path, address.domain))
    }

    #[test]
    fn by_host_name_or_by_path() {
        let domain = "abc123.lambda-url.us-east-1.localhost";
        let found = |path: &str| Some(("abc123".to_owned(), path.to_owned(), domain.to_owned()));
        assert_eq!(target(domain, "/a%20b?c=d"), found("/a%20b"));
        assert_eq!(target("ABC123.lambda-url.us-east-1.LOCALHOST:9401", "/"), found("/"));
        assert_eq!(target("127.0.0.1:9401", "/_url/abc123/a%20b?c"), found("/a%20b"));
        assert_eq!(target("", "/_url/abc123"), found("/"));
        assert_eq!(target("other", "/_url/abc123/"), found("/"));
    }

    #[test]
    fn what_is_no_function_url_is_none() {
        for (host, uri) in [
            ("localhost", "/"),
            ("abc.lambda-url.eu-west-1.localhost", "/"),
            ("abc.lambda-url.us-east-1.example.org", "/"),
            ("abc.x.lambda-url.us-east-1.localhost", "/"),
            (".lambda-url.us-east-1.localhost", "/"),
            ("localhost", "/_url/"),
            ("localhost", "/_url/a.b/"),
            ("localhost", "/x/_url/abc/"),
        ] {
            assert_eq!(target(host, uri), None, "{host} {uri}");
        }
    }
}
