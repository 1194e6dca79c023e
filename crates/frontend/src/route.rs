//! From method and path to an operation of the model.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use percent_encoding::percent_decode_str;

use crate::model::{LAMBDA, Model, Operation, SCHEDULER};

/// The Lambda API's routes.
pub(crate) static ROUTES: LazyLock<Routes> = LazyLock::new(|| Routes::build(&LAMBDA));

/// The scheduler's; no path of one is one of the other.
pub(crate) static SCHEDULER_ROUTES: LazyLock<Routes> = LazyLock::new(|| Routes::build(&SCHEDULER));

/// Operations by method and number of path segments.
pub(crate) struct Routes {
    by_shape: HashMap<(&'static str, usize), Vec<Route>>,
}

struct Route {
    name: &'static str,
    operation: &'static Operation,
    segments: Vec<Segment>,
    /// Query parameters that choose this operation among those of its path.
    query: Vec<(&'static str, &'static str)>,
}

enum Segment {
    Literal(&'static str),
    Label(&'static str),
}

/// What a request asks for.
pub(crate) struct Match<'a> {
    /// The operation's name.
    pub name: &'static str,
    /// The operation.
    pub operation: &'static Operation,
    /// Its labels, decoded.
    pub labels: Vec<(&'static str, Cow<'a, str>)>,
}

impl Routes {
    fn build(model: &'static Model) -> Self {
        let mut by_shape: HashMap<_, Vec<Route>> = HashMap::new();
        for (name, operation) in &model.operations {
            let (path, query) = operation.http.request_uri.split_once('?').unwrap_or((&operation.http.request_uri, ""));
            let segments: Vec<Segment> = split(path)
                .map(|part| match part.strip_prefix('{').and_then(|label| label.strip_suffix('}')) {
                    Some(label) => Segment::Label(label.trim_end_matches('+')),
                    None => Segment::Literal(part),
                })
                .collect();
            let query = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
            let key = (operation.http.method.as_str(), segments.len());
            by_shape.entry(key).or_default().push(Route { name, operation, segments, query });
        }
        for routes in by_shape.values_mut() {
            // The more a route says of the query and in literals, the earlier it is tried.
            let literals = |route: &Route| route.segments.iter().filter(|s| matches!(s, Segment::Literal(_))).count();
            routes.sort_by_key(|route| std::cmp::Reverse((route.query.len(), literals(route))));
        }
        Self { by_shape }
    }

    /// The operation behind a request. A slash at the end makes no difference, unless an empty label is meant.
    pub fn find<'a>(&self, method: &str, path: &'a str, query: &str) -> Option<Match<'a>> {
        let method = *["GET", "POST", "PUT", "DELETE", "PATCH"].iter().find(|known| **known == method)?;
        let path = path.strip_prefix('/')?;
        let shorter = path.strip_suffix('/').and_then(|path| self.find_exactly(method, path, query));
        shorter.or_else(|| self.find_exactly(method, path, query))
    }

    fn find_exactly<'a>(&self, method: &'static str, path: &'a str, query: &str) -> Option<Match<'a>> {
        let parts: Vec<&str> = path.split('/').collect();
        let has = |wanted: &(&str, &str)| query.split('&').any(|pair| pair.split_once('=') == Some(*wanted));
        let routes = self.by_shape.get(&(method, parts.len()))?;
        let route = routes.iter().find(|route| {
            route.query.iter().all(has)
                && route.segments.iter().zip(&parts).all(|(segment, part)| match segment {
                    Segment::Literal(text) => text == part,
                    Segment::Label(_) => true,
                })
        })?;
        let labels = route.segments.iter().zip(&parts).filter_map(|(segment, part)| match segment {
            Segment::Literal(_) => None,
            Segment::Label(name) => Some((*name, percent_decode_str(part).decode_utf8_lossy())),
        });
        Some(Match { name: route.name, operation: route.operation, labels: labels.collect() })
    }
}

fn split(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.trim_matches('/').split('/')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_by_its_own_path() {
        for (name, operation) in &LAMBDA.operations {
            let (path, query) = operation.http.request_uri.split_once('?').unwrap_or((&operation.http.request_uri, ""));
            let path: String = path
                .split('/')
                .map(|part| if part.starts_with('{') { "a%3Ab" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            for path in [path.clone(), format!("{}/", path.trim_end_matches('/'))] {
                let found = ROUTES.find(&operation.http.method, &path, query).unwrap();
                assert_eq!(found.name, name, "{path}");
                assert!(found.labels.iter().all(|(_, value)| value == "a:b"));
            }
        }
    }

    #[test]
    fn labels_may_be_arns_or_empty() {
        let found = ROUTES.find("GET", "/2015-03-31/functions/arn:aws:lambda:us-east-1:1:function:f", "").unwrap();
        assert_eq!(
            (found.name, found.labels.first().unwrap().1.as_ref()),
            ("GetFunction", "arn:aws:lambda:us-east-1:1:function:f")
        );
        assert_eq!(ROUTES.find("GET", "/2015-03-31/functions//policy", "").unwrap().name, "GetPolicy");
        assert_eq!(ROUTES.find("DELETE", "/2015-03-31/functions/", "").unwrap().name, "DeleteFunction");
        assert!(ROUTES.find("GET", "/2015-03-31/nothing", "").is_none());
        assert!(ROUTES.find("PATCH", "/2015-03-31/functions/f", "").is_none());
    }
}
