//! Keeping secrets out of errors and logs.
//!
//! Pre-signed URLs carry their authority in the query, old-style registry URLs carry passwords before the `@`,
//! and servers echo requests in their messages. Whatever is shown goes through here first.

use url::Url;

/// How much of a server's message is shown; what is longer is noise or a page of HTML.
const MESSAGE_LIMIT: usize = 300;

/// `url` without user information, query and fragment.
pub fn url(url: &Url) -> String {
    let mut shown = url.clone();
    // Fails only for URLs that have no host, which then have no user information either.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    let had_query = shown.query().is_some();
    shown.set_query(None);
    shown.set_fragment(None);
    if had_query { format!("{shown}?…") } else { shown.to_string() }
}

/// A server's text for use in an error: one line, bounded, with queries and user information cut out of every
/// URL in it.
pub(crate) fn message(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut shown = String::new();
    for word in words {
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(&cut_url(word));
        if shown.len() > MESSAGE_LIMIT {
            let end = (0..=MESSAGE_LIMIT).rev().find(|&i| shown.is_char_boundary(i)).unwrap_or(0);
            shown.truncate(end);
            shown.push('…');
            break;
        }
    }
    shown
}

fn cut_url(word: &str) -> String {
    let Some(start) = word.find("://") else { return word.to_owned() };
    let after = start + 3;
    let authority_end = word[after..].find(['/', '?', '#']).map_or(word.len(), |i| after + i);
    let mut shown = word[..after].to_owned();
    let authority = &word[after..authority_end];
    shown.push_str(authority.rsplit_once('@').map_or(authority, |(_, host)| host));
    let rest = &word[authority_end..];
    match rest.find(['?', '#']) {
        Some(query) => {
            shown.push_str(&rest[..query]);
            shown.push_str("?…");
        }
        None => shown.push_str(rest),
    }
    shown
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_user_information_and_query() {
        let shown = url(&Url::parse("https://me:pw@host/a/b?X-Amz-Signature=secret#frag").unwrap());
        assert_eq!(shown, "https://host/a/b?…");
    }

    #[test]
    fn messages_are_one_bounded_line_without_queries() {
        assert_eq!(message("see\r\n \"https://u:p@h/x?token=secret\"  now"), "see \"https://h/x?… now");
        let long = message(&"ä".repeat(1000));
        assert!(long.len() <= MESSAGE_LIMIT + '…'.len_utf8(), "{}", long.len());
    }
}
