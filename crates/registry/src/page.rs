//! Lists in pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Items behind `marker`, at most `asked` (and `most`) of them, by key; and the marker of the next page.
pub(crate) fn page<T>(
    mut items: Vec<(String, T)>,
    marker: Option<&str>,
    asked: Option<u32>,
    most: usize,
) -> (Vec<T>, Option<String>) {
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(marker) = marker.and_then(|marker| URL_SAFE_NO_PAD.decode(marker).ok()) {
        items.retain(|(key, _)| key.as_bytes() > marker.as_slice());
    }
    let count = asked.map_or(most, |asked| (asked as usize).clamp(1, most));
    let more = items.len() > count;
    items.truncate(count);
    let next = items.last().filter(|_| more).map(|(key, _)| URL_SAFE_NO_PAD.encode(key));
    (items.into_iter().map(|(_, item)| item).collect(), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_every_item_once() {
        let items = || (0..7).map(|n| (format!("{n}"), n)).rev().collect::<Vec<_>>();
        let (mut seen, mut marker) = (Vec::new(), None);
        loop {
            let (page, next) = page(items(), marker.as_deref(), Some(3), 50);
            seen.extend(page);
            marker = next;
            if marker.is_none() {
                break;
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(page(items(), None, Some(100), 5).0.len(), 5);
    }
}
