//! Dockerfile, fly.toml and .dockerignore, compared with the settings and ports of the server.

use replyhook::config::DEFAULT_TOML;

use crate::support::{read, root};

/// Returns the instructions of the Dockerfile, with continued lines joined.
fn dockerfile() -> Vec<String> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

fn last_instruction(instruction: &str) -> String {
    let lines = dockerfile();
    let found = lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
    found
        .unwrap_or_else(|| panic!("the Dockerfile has no {instruction}"))
        .trim()
        .to_owned()
}

// The health check needs no shell either.
#[test]
fn image_runs_locked_binary_unprivileged_without_shell() {
    let lines = dockerfile();
    let image = lines.join("\n");
    assert!(
        lines
            .iter()
            .filter(|line| line.contains("cargo build"))
            .all(|line| line.contains("--locked"))
    );
    let user = last_instruction("USER");
    let uid = user.split(':').next().unwrap();
    assert!(
        uid.parse::<u32>().is_ok_and(|uid| uid > 0),
        "USER {user} is not a number above 0"
    );
    assert_eq!(last_instruction("STOPSIGNAL"), "SIGTERM");
    assert!(
        last_instruction("HEALTHCHECK").ends_with(r#"CMD ["/usr/local/bin/replyhook", "health"]"#),
        "{}",
        last_instruction("HEALTHCHECK")
    );
    assert_eq!(
        last_instruction("ENTRYPOINT"),
        r#"["/usr/local/bin/replyhook"]"#
    );
    assert_eq!(last_instruction("CMD"), r#"["serve"]"#);
    assert_eq!(last_instruction("VOLUME"), "/data");
    assert!(image.contains("ca-certificates"));
    let final_stage = image.rsplit("FROM ").next().unwrap();
    assert!(
        !final_stage.contains("cargo") && !final_stage.contains("gcc"),
        "the final image contains a compiler"
    );
    for secret in ["TWILIO_AUTH_TOKEN=", "auth_token"] {
        assert!(!image.contains(secret), "the Dockerfile contains {secret}");
    }
}

#[test]
fn image_exposes_public_port_only() {
    let listen = DEFAULT_TOML
        .lines()
        .find_map(|line| line.strip_prefix("listen = \"0.0.0.0:"))
        .unwrap();
    assert_eq!(last_instruction("EXPOSE"), listen.trim_end_matches('"'));
    let admin = dockerfile()
        .into_iter()
        .find(|line| line.starts_with("ENV ") && line.contains("REPLYHOOK__ADMIN__LISTEN"));
    assert!(
        admin
            .unwrap()
            .contains("REPLYHOOK__ADMIN__LISTEN=\"[::]:9090\"")
    );
}

#[test]
fn fly_toml_checks_admin_port_and_never_suspends() {
    let fly: toml::Table = read("fly.toml").parse().unwrap();
    assert_eq!(fly["kill_signal"].as_str(), Some("SIGTERM"));
    let drain = DEFAULT_TOML
        .lines()
        .find_map(|line| line.strip_prefix("shutdown_timeout_s = "))
        .unwrap();
    assert!(
        fly["kill_timeout"].as_integer().unwrap() > drain.parse().unwrap(),
        "kill_timeout is not longer than server.shutdown_timeout_s"
    );
    let service = fly["http_service"].as_table().unwrap();
    assert_eq!(service["internal_port"].as_integer(), Some(8080));
    assert_eq!(service["auto_stop_machines"].as_str(), Some("off"));
    assert!(service["min_machines_running"].as_integer().unwrap() >= 1);
    assert_eq!(fly["metrics"]["port"].as_integer(), Some(9090));
    assert_eq!(fly["metrics"]["path"].as_str(), Some("/metrics"));
    let checks = fly["checks"].as_table().unwrap();
    let paths: Vec<_> = checks
        .values()
        .map(|check| {
            (
                check["port"].as_integer().unwrap(),
                check["path"].as_str().unwrap(),
            )
        })
        .collect();
    assert!(
        paths.contains(&(9090, "/readyz")) && paths.contains(&(9090, "/livez")),
        "{paths:?}"
    );
    let mounts = match &fly["mounts"] {
        toml::Value::Array(mounts) => mounts[0].clone(),
        mounts => mounts.clone(),
    };
    assert_eq!(mounts["destination"].as_str(), Some("/data"));
    let env = fly["env"].as_table().unwrap();
    // Absolute, because a shell on the machine does not start in the folder of the volume.
    let store = env["DATABASE_URL"].as_str();
    assert_eq!(store, Some("sqlite:/data/replyhook.db"));
    for (name, value) in env {
        assert!(
            ["PUBLIC_URL", "DATABASE_URL"].contains(&name.as_str())
                || name.starts_with("REPLYHOOK__"),
            "{name} is not a setting"
        );
        assert!(
            !name.contains("TOKEN"),
            "{name}={value} must be set with `fly secrets`"
        );
    }
}

#[test]
fn dockerignore_excludes_target_and_git() {
    let ignored = read(".dockerignore");
    for folder in ["target", ".git"] {
        assert!(
            ignored
                .lines()
                .any(|line| line.trim().trim_matches('/') == folder || line.trim() == "*"),
            "{folder} is not excluded"
        );
    }
    assert!(root().join("scripts/test-image").exists());
}
