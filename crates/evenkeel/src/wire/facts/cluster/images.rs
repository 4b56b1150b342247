//! Names of images, and why one could not be pulled, in a few words.

/// The registry of an image, as clients of registries read names.
pub fn host(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// The runtime's own words are long; these are what a person looks for in them.
const REASONS: [(&str, &str); 8] = [
    ("connection refused", "connection refused"),
    ("no such host", "its name is not found"),
    ("i/o timeout", "it does not answer"),
    ("deadline exceeded", "it does not answer"),
    ("no route to host", "no route to it"),
    ("network is unreachable", "no route to it"),
    ("unauthorized", "it refuses the login"),
    ("not found", "it has no such image"),
];

pub fn why(message: &str, reason: &str) -> String {
    let found = REASONS.iter().find(|(part, _)| message.to_lowercase().contains(part));
    found.map_or_else(|| reason.to_owned(), |(_, words)| (*words).to_owned())
}

#[cfg(test)]
mod tests {
    use super::{host, why};

    #[test]
    fn hosts_are_read_as_registries_do() {
        assert_eq!(host("nginx"), "docker.io");
        assert_eq!(host("library/nginx:1"), "docker.io");
        assert_eq!(host("ghcr.io/a/b:1"), "ghcr.io");
        assert_eq!(host("127.0.0.1:5000/a"), "127.0.0.1:5000");
        assert_eq!(host("localhost/a"), "localhost");
    }

    #[test]
    fn reasons_are_short() {
        let long = r#"failed to do request: Head "https://r/v2/": dial tcp 1.2.3.4:443: connect: connection refused"#;
        assert_eq!(why(long, "ErrImagePull"), "connection refused");
        assert_eq!(why("odd", "ErrImagePull"), "ErrImagePull");
    }
}
