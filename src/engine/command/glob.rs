//! Glob patterns of KEYS, SCAN and CONFIG GET.

/// Whether `text` matches `pattern`: `*`, `?`, `[abc]`, `[^a-z]`, and `\` to take the next byte as
/// it is. Bytes are compared, not characters. Time is bounded by the product of the lengths.
///
/// ```
/// use ringdove::engine::command::glob_matches;
/// assert!(glob_matches(b"user:[0-9]*", b"user:42"));
/// ```
pub fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    glob(pattern, text)
}

/// As [`glob_matches`], upper and lower case being the same.
pub(crate) fn glob_matches_any_case(pattern: &[u8], text: &[u8]) -> bool {
    glob(&pattern.to_ascii_lowercase(), &text.to_ascii_lowercase())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a literal fails: after the last star, one byte of text further. An
    // earlier star never has to be widened: the last one can swallow whatever it would have.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        match (p < pattern.len(), text.get(t)) {
            (false, None) => return true,
            (true, Some(&byte)) => {
                let (matches, next) = one(&pattern[p..], byte);
                if matches {
                    p += next;
                    t += 1;
                    continue;
                }
            }
            // Only stars match nothing, and they are passed above.
            (true, None) => return false,
            (false, Some(_)) => {}
        }
        match retry {
            Some((after_star, from)) if from < text.len() => {
                retry = Some((after_star, from + 1));
                (p, t) = (after_star, from + 1);
            }
            _ => return false,
        }
    }
}

/// Matches one byte against the element at the front of `pattern`; also the element's length.
fn one(pattern: &[u8], byte: u8) -> (bool, usize) {
    match pattern {
        [b'?', ..] => (true, 1),
        [b'[', rest @ ..] => {
            let (matches, length) = class(rest, byte);
            (matches, length + 1)
        }
        [b'\\', escaped, ..] => (*escaped == byte, 2),
        [literal, ..] => (*literal == byte, 1),
        [] => (false, 0),
    }
}

/// Matches one byte against a class whose `[` has been taken; also the length up to its `]`.
/// A class that does not end takes the rest of the pattern.
fn class(pattern: &[u8], byte: u8) -> (bool, usize) {
    let negated = pattern.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match &pattern[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                at += 1;
            }
        }
    }
    (found != negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("a[", "a", false),
            ("a[b", "ab", true),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("user:*:x", "user:1:y:x", true),
        ] {
            assert_eq!(glob_matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(glob_matches_any_case(b"MAX*", b"maxmemory"));
    }
}
