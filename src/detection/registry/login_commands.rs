//! Passwords in texts that log in to a registry: commands like `docker login`, addresses with a user name and a password, and files in the
//! format of `.netrc`.
//!
//! Takes a text and returns whether it contains a password. Variables and template expressions in place of a password do not count.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::named_passwords::has_password;

/// The start of a place with a password, or text inside it.
const PLACES: [&str; 4] = [" login ", "creds", "://", "machine "];

const LOGIN: usize = 0;
const CREDENTIALS: usize = 1;
const ADDRESS: usize = 2;

/// Programs that log in to registries, as the word before `login`.
const PROGRAMS: [&[u8]; 12] = [
    b"docker",
    b"podman",
    b"nerdctl",
    b"buildah",
    b"skopeo",
    b"oras",
    b"finch",
    b"registry",
    b"auth",
    b"img",
    b"cosign",
    b"notation",
];

/// Maximum length of a command, which bounds the time needed for a text.
const MAX_COMMAND_LEN: usize = 512;

/// Maximum length of an address before its path.
const MAX_ADDRESS_LEN: usize = 512;

/// Compiling constants does not fail.
static SEARCHER: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::new(PLACES).ok());

/// Returns whether a text has a password for a registry in one of these forms.
pub(super) fn has_login(text: &[u8], is_registry: impl Fn(&str) -> bool) -> bool {
    let Some(searcher) = &*SEARCHER else { return false };
    searcher.find_iter(text).any(|place| {
        let (before, after) = (&text[..place.start()], &text[place.end()..]);
        match place.pattern().as_usize() {
            LOGIN => is_of_program(before) && has_flag(before, after),
            CREDENTIALS => before.ends_with(b"-") && has_credentials(after),
            ADDRESS => is_address(after, &is_registry),
            _ => is_machine(after, &is_registry),
        }
    })
}

fn is_of_program(before: &[u8]) -> bool {
    PROGRAMS.iter().any(|program| before.ends_with(program))
}

/// Returns the rest of a command, which ends with its line unless the line break is escaped. Blank lines after an escaped line break do not
/// end it.
fn command(text: &[u8]) -> &[u8] {
    let text = &text[..text.len().min(MAX_COMMAND_LEN)];
    let (mut end, mut continues) = (0, false);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        let line = line.trim_ascii();
        continues = line.ends_with(b"\\") || continues && line.is_empty();
        if !continues {
            break;
        }
    }
    &text[..end]
}

fn has_flag(before: &[u8], after: &[u8]) -> bool {
    let words: Vec<&[u8]> = words(command(after)).collect();
    let value_of = |flag: &[u8]| {
        words.iter().enumerate().find_map(|(at, word)| {
            let rest = word.strip_prefix(flag)?;
            match rest.split_first() {
                None => words.get(at + 1).copied(),
                Some((b'=', value)) => Some(value),
                // The value of a single-letter flag may follow directly.
                Some(_) if flag.len() == 2 => Some(rest),
                Some(_) => None,
            }
        })
    };
    let has_user = [&b"--username"[..], b"-u"].into_iter().find_map(value_of).is_some();
    if has_user && [&b"--password"[..], b"-p"].into_iter().filter_map(value_of).any(is_password) {
        return true;
    }
    // The password comes from the preceding command, or follows on the same line.
    words.contains(&&b"--password-stdin"[..])
        && (sent_before(before).is_some_and(is_password)
            || words
                .iter()
                .position(|word| *word == b"<<<")
                .and_then(|at| words.get(at + 1))
                .is_some_and(|word| is_password(word)))
}

/// Returns the last word that a command before a pipe prints.
fn sent_before(before: &[u8]) -> Option<&[u8]> {
    let before = &before[before.len().saturating_sub(MAX_COMMAND_LEN)..];
    let line = before.rsplit(|byte| matches!(byte, b'\n' | b';')).next()?;
    let end = memchr::memrchr(b'|', line)?;
    let words: Vec<&[u8]> = words(&line[..end]).collect();
    let is_writer = |word: &&[u8]| word.ends_with(b"echo") || word.ends_with(b"printf");
    words.iter().any(is_writer).then(|| words.last().copied()).flatten()
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = text.split(|byte| byte.is_ascii_whitespace() || b"\"'\\,".contains(byte));
    words.filter(|word| !word.is_empty())
}

/// `--creds`, `--src-creds` and `--dest-creds` of skopeo and others.
fn has_credentials(after: &[u8]) -> bool {
    let Some(value) = words(&after[..after.len().min(MAX_ADDRESS_LEN)]).next() else { return false };
    let is_value = matches!(after.first(), Some(b' ' | b'=' | b'"' | b'\''));
    let value = value.strip_prefix(b"=").unwrap_or(value);
    is_value && memchr::memchr(b':', value).is_some_and(|at| at > 0 && is_password(&value[at + 1..]))
}

/// `https://user:password@host/`.
fn is_address(after: &[u8], is_registry: &impl Fn(&str) -> bool) -> bool {
    let after = &after[..after.len().min(MAX_ADDRESS_LEN)];
    let end = after.iter().position(|byte| byte.is_ascii_whitespace() || b"/\"'\\<>?#".contains(byte));
    let authority = &after[..end.unwrap_or(after.len())];
    let Some(at) = memchr::memrchr(b'@', authority) else { return false };
    let (user, host) = (&authority[..at], &authority[at + 1..]);
    let has_password = memchr::memchr(b':', user).is_some_and(|at| is_password(&user[at + 1..]));
    has_password && std::str::from_utf8(host).is_ok_and(is_registry)
}

/// `machine host login user password secret`.
fn is_machine(after: &[u8], is_registry: &impl Fn(&str) -> bool) -> bool {
    let mut words = words(&after[..after.len().min(MAX_ADDRESS_LEN)]);
    if !words.next().is_some_and(|host| std::str::from_utf8(host).is_ok_and(is_registry)) {
        return false;
    }
    let mut own = words.take_while(|word| *word != b"machine");
    own.find(|word| *word == b"password").is_some() && own.next().is_some_and(is_password)
}

/// Returns whether a word is a password, rather than a variable, a template expression, or a flag.
fn is_password(word: &[u8]) -> bool {
    !word.starts_with(b"-")
        && !word.starts_with(b"`")
        && has_password(&[b"password=", word].concat(), |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_logins_in_commands_and_addresses() {
        let has = |text: &str| has_login(text.as_bytes(), |host| host.ends_with("ghcr.io"));
        for text in [
            "docker login -u bot -p loot1234 ghcr.io\n",
            "set -e\n/usr/bin/docker login \\\n  --username bot \\\n  --password=loot1234 ghcr.io",
            "echo loot1234 | docker login -u bot --password-stdin quay.io",
            "podman login --password-stdin quay.io <<< \"loot1234\"",
            r#"{"args":["docker login -ubot -ploot1234 ghcr.io"]}"#,
            "helm registry login ghcr.io --username bot --password 'loot1234'",
            "crane auth login ghcr.io -u bot -p loot1234",
            "skopeo copy --dest-creds bot:loot1234 docker://a docker://b",
            "skopeo inspect --creds=bot:loot1234 docker://a",
            "https://bot:loot1234@ghcr.io/v2/",
            "A=1\nREGISTRY=http://bot:loot1234@ghcr.io",
            "machine ghcr.io login bot password loot1234\n",
            "machine ghcr.io\n  login bot\n  password loot1234\n",
        ] {
            assert!(has(text), "{text}");
        }
        let decoys = "see https://example.com and docker login ".repeat(20_000);
        assert!(has(&format!("{decoys}\ndocker login -u bot -p loot1234")), "behind many others");
        for text in [
            "docker login -u bot -p $PASSWORD ghcr.io",
            "docker login -u bot -p \"${PASSWORD}\" ghcr.io",
            "docker login -u bot -p {{ .password }} ghcr.io",
            "echo $PASSWORD | docker login -u bot --password-stdin",
            "aws ecr get-login-password | docker login -u AWS --password-stdin x",
            "docker login ghcr.io\npsql -p 5432",
            "use docker login to log in, with -p or --password-stdin",
            "az acr login -n x",
            "skopeo copy --dest-creds $CREDS docker://a",
            "https://ghcr.io/v2/ bot:loot@x",
            "https://bot:loot1234@github.com/",
            "https://bot@ghcr.io",
            "machine github.com login bot password loot1234",
            "machine ghcr.io login bot\nmachine github.com password loot1234",
            "the machine ",
            "://",
            " login ",
        ] {
            assert!(!has(text), "{text}");
        }
    }
}
