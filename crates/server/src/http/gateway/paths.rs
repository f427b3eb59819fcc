//! Which call a path stands for (GW-02 to GW-11; etcd: the http options in its .proto files). The
//! table is in `proto/http_rules.txt`.

use proto::HTTP_RULES;

/// The call of a path without its beginning.
pub(super) fn find(path: &str) -> Option<&'static str> {
    let place = HTTP_RULES.binary_search_by(|(known, _)| (*known).cmp(path));
    place.ok().map(|place| HTTP_RULES[place].1)
}

#[cfg(test)]
mod tests {
    use super::super::json::Form;
    use super::*;

    #[test]
    fn every_path_stands_for_a_call_with_known_messages() {
        assert!(HTTP_RULES.is_sorted());
        for (path, call) in HTTP_RULES.iter().copied() {
            assert_eq!(find(path), Some(call));
            assert!(Form::of(call).is_some(), "{call}");
        }
        assert_eq!(find("kv"), None);
    }
}
