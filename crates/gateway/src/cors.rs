//! Cross-origin requests: what browsers are told, from the URL's configuration.
//!
//! A preflight is answered here and never reaches the function, signed or not, as on AWS. Every other response gets the
//! configured headers, which win over the function's own.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lambent_registry::shape::Cors;

/// Whether this is a browser asking for permission.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight. An origin that is not allowed gets no permission, which is all a browser needs to know.
pub(crate) fn preflight(cors: &Cors, request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !allow_origin(cors, request, &mut headers) {
        return headers;
    }
    set_list(&mut headers, ACCESS_CONTROL_ALLOW_METHODS, cors.allow_methods.as_deref());
    set_list(&mut headers, ACCESS_CONTROL_ALLOW_HEADERS, cors.allow_headers.as_deref());
    if let Some(seconds) = cors.max_age {
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(seconds));
    }
    headers
}

/// Adds the configured headers to a response, in place of the function's.
pub(crate) fn apply(cors: &Cors, request: &HeaderMap, response: &mut HeaderMap) {
    for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS] {
        response.remove(name);
    }
    if allow_origin(cors, request, response) {
        set_list(response, ACCESS_CONTROL_EXPOSE_HEADERS, cors.expose_headers.as_deref());
    }
}

fn allow_origin(cors: &Cors, request: &HeaderMap, response: &mut HeaderMap) -> bool {
    let Some(origin) = request.get(ORIGIN) else { return false };
    let origins = cors.allow_origins.as_deref().unwrap_or_default();
    if !origins.iter().any(|allowed| fits(allowed, origin)) {
        return false;
    }
    let with_credentials = cors.allow_credentials == Some(true);
    // Browsers refuse `*` for requests with credentials, so those are told their own origin.
    if origins.iter().any(|allowed| allowed == "*") && !with_credentials {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.append(VARY, HeaderValue::from_static("Origin"));
    }
    if with_credentials {
        response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    true
}

/// `*`, an origin, or `https://*` for any origin of that scheme.
fn fits(allowed: &str, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    match allowed.strip_suffix('*') {
        Some(start) => origin.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)),
        None => allowed.eq_ignore_ascii_case(origin),
    }
}

fn set_list(headers: &mut HeaderMap, name: HeaderName, values: Option<&[String]>) {
    let Some(values) = values.filter(|values| !values.is_empty()) else { return };
    if let Ok(value) = HeaderValue::from_str(&values.join(",")) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], with_credentials: bool) -> Cors {
        Cors {
            allow_origins: Some(origins.iter().map(|&o| o.to_owned()).collect()),
            allow_credentials: Some(with_credentials),
            allow_methods: Some(vec!["GET".to_owned(), "PUT".to_owned()]),
            allow_headers: Some(vec!["x-a".to_owned(), "x-b".to_owned()]),
            expose_headers: Some(vec!["date".to_owned()]),
            max_age: Some(300),
        }
    }

    fn from(origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, "PUT".parse().unwrap());
        headers
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_preflight_is_told_what_is_allowed() {
        let asked = from("https://app.example.org");
        assert!(is_preflight(&Method::OPTIONS, &asked));
        assert!(!is_preflight(&Method::GET, &asked));
        assert!(!is_preflight(&Method::OPTIONS, &HeaderMap::new()));
        let headers = preflight(&cors(&["https://app.example.org"], true), &asked);
        assert_eq!(
            text(&headers),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-headers: x-a,x-b",
                "access-control-allow-methods: GET,PUT",
                "access-control-allow-origin: https://app.example.org",
                "access-control-max-age: 300",
                "vary: Origin",
            ]
        );
        assert!(preflight(&cors(&["https://other.example.org"], true), &asked).is_empty());
    }

    #[test]
    fn any_origin_is_a_star_unless_credentials_are_allowed() {
        let asked = from("https://a.example");
        let origin = |cors: &Cors| preflight(cors, &asked).get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned();
        assert_eq!(origin(&cors(&["*"], false)).unwrap(), "*");
        assert_eq!(origin(&cors(&["*"], true)).unwrap(), "https://a.example");
        assert_eq!(origin(&cors(&["https://*"], false)).unwrap(), "https://a.example");
        assert_eq!(origin(&cors(&["http://*"], false)), None);
    }

    #[test]
    fn the_configuration_wins_over_the_function() {
        let mut response = HeaderMap::new();
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, "*".parse().unwrap());
        response.insert("x-own", "kept".parse().unwrap());
        apply(&cors(&["https://a.example"], false), &from("https://a.example"), &mut response);
        assert_eq!(
            text(&response),
            [
                "access-control-allow-origin: https://a.example",
                "access-control-expose-headers: date",
                "vary: Origin",
                "x-own: kept",
            ]
        );
        apply(&cors(&["https://a.example"], false), &from("https://b.example"), &mut response);
        assert_eq!(text(&response), ["vary: Origin", "x-own: kept"]);
    }
}
