//! How the credentials of a registry are revoked and replaced, by the kind of registry.
//!
//! Takes a host, returns the kind with a link and a step. Steps contain no text from events: people copy commands, so a host or user name
//! in one would let an attacker choose the command.

/// A kind of registry, recognized by its host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RegistryKind {
    Acr,
    ArtifactRegistry,
    DockerHub,
    Ecr,
    Ghcr,
    GitLab,
    Harbor,
    OpenShift,
    Quay,
    Other,
}

/// How to rotate a credential of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Name of the kind of registry.
    pub kind: &'static str,
    /// What to do, in one or two sentences.
    pub step: &'static str,
    /// A command, with placeholders in capital letters.
    pub command: Option<&'static str>,
    /// The vendor's page about it.
    pub link: Option<&'static str>,
}

impl RegistryKind {
    #[cfg(test)]
    const ALL: [RegistryKind; 10] = [
        RegistryKind::Acr,
        RegistryKind::ArtifactRegistry,
        RegistryKind::DockerHub,
        RegistryKind::Ecr,
        RegistryKind::Ghcr,
        RegistryKind::GitLab,
        RegistryKind::Harbor,
        RegistryKind::OpenShift,
        RegistryKind::Quay,
        RegistryKind::Other,
    ];

    /// Recognizes a registry by its host, and a Harbor under another name by the user names of its robot accounts (`robot$name`).
    pub fn of<'t>(host: &str, usernames: impl IntoIterator<Item = &'t str>) -> Self {
        let host = host.trim().to_ascii_lowercase();
        let host = host.strip_prefix("https://").or_else(|| host.strip_prefix("http://")).unwrap_or(&host);
        let host = host.split(['/', ':']).next().unwrap_or_default().trim_end_matches('.');
        let labels: Vec<&str> = host.split('.').collect();
        let is_under = |zone: &str| {
            host == zone || host.strip_suffix(zone).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        };
        let any = |zones: &[&str]| zones.iter().any(|zone| is_under(zone));
        if any(&["azurecr.io", "azurecr.cn", "azurecr.us"]) {
            RegistryKind::Acr
        } else if any(&["pkg.dev", "gcr.io"]) {
            RegistryKind::ArtifactRegistry
        } else if any(&["docker.io", "hub.docker.com"]) {
            RegistryKind::DockerHub
        } else if any(&["public.ecr.aws"])
            || (any(&["amazonaws.com", "amazonaws.com.cn", "on.aws", "amazonwebservices.com.cn"])
                && labels.iter().any(|label| matches!(*label, "ecr" | "dkr-ecr" | "dkr")))
        {
            RegistryKind::Ecr
        } else if any(&["ghcr.io", "docker.pkg.github.com"]) {
            RegistryKind::Ghcr
        } else if any(&["gitlab.com"]) || labels.contains(&"gitlab") {
            RegistryKind::GitLab
        } else if any(&["quay.io"]) || labels.contains(&"quay") {
            RegistryKind::Quay
        } else if labels.contains(&"openshift-image-registry") || host.contains("-openshift-image-registry.")
        {
            RegistryKind::OpenShift
        } else if any(&["goharbor.io"])
            || labels.iter().any(|label| label.split('-').any(|word| word == "harbor"))
            || usernames.into_iter().any(|name| name.starts_with("robot$"))
        {
            RegistryKind::Harbor
        } else {
            RegistryKind::Other
        }
    }

    pub const fn rotation(self) -> Rotation {
        match self {
            RegistryKind::Acr => Rotation {
                kind: "Azure Container Registry",
                step: "Generate a new password of the token (or renew the admin password, or reset the service principal), which \
                       invalidates the old one.",
                command: Some(
                    "az acr token credential generate --registry REGISTRY --name TOKEN --password1",
                ),
                link: Some(
                    "https://learn.microsoft.com/azure/container-registry/container-registry-token-based-repository-permissions",
                ),
            },
            RegistryKind::ArtifactRegistry => Rotation {
                kind: "Google Artifact Registry",
                step: "Create a new key of the service account, then delete the exposed one.",
                command: Some("gcloud iam service-accounts keys delete KEY_ID --iam-account=ACCOUNT"),
                link: Some("https://cloud.google.com/iam/docs/keys-create-delete"),
            },
            RegistryKind::DockerHub => Rotation {
                kind: "Docker Hub",
                step: "Delete the access token under Account settings > Personal access tokens and generate a new one; if the \
                       password itself was used, change it.",
                command: None,
                link: Some("https://docs.docker.com/security/access-tokens/"),
            },
            RegistryKind::Ecr => Rotation {
                kind: "Amazon ECR",
                step: "The token in the secret expires after 12 hours. Until then only a policy that denies the principal's earlier \
                       sessions revokes it. If an IAM access key was exposed, deactivate and replace it.",
                command: Some(
                    "aws iam update-access-key --user-name USER --access-key-id KEY_ID --status Inactive",
                ),
                link: Some(
                    "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html",
                ),
            },
            RegistryKind::Ghcr => Rotation {
                kind: "GitHub Container Registry",
                step: "Delete the personal access token under Settings > Developer settings and generate a new one with the scope \
                       read:packages.",
                command: None,
                link: Some("https://github.com/settings/tokens"),
            },
            RegistryKind::GitLab => Rotation {
                kind: "GitLab",
                step: "Revoke the deploy token under Settings > Repository > Deploy tokens (or the access token under Access tokens) \
                       and create a new one with the scope read_registry.",
                command: None,
                link: Some("https://docs.gitlab.com/user/project/deploy_tokens/"),
            },
            RegistryKind::Harbor => Rotation {
                kind: "Harbor",
                step: "Refresh the secret of the robot account under Robot Accounts > Action > Refresh Secret, which invalidates the \
                       old one.",
                command: None,
                link: Some(
                    "https://goharbor.io/docs/latest/working-with-projects/project-configuration/create-robot-accounts/",
                ),
            },
            RegistryKind::OpenShift => Rotation {
                kind: "OpenShift image registry",
                step: "Delete the secret: the token in it is revoked, and OpenShift creates a new secret for the service account.",
                command: Some("oc -n NAMESPACE delete secret NAME"),
                link: Some(
                    "https://docs.openshift.com/container-platform/latest/openshift_images/managing_images/using-image-pull-secrets.html",
                ),
            },
            RegistryKind::Quay => Rotation {
                kind: "Quay",
                step: "Regenerate the token of the robot account under Robot Accounts > View Credentials, which invalidates the old \
                       one.",
                command: None,
                link: Some("https://docs.quay.io/glossary/robot-accounts.html"),
            },
            RegistryKind::Other => Rotation {
                kind: "unknown",
                step: "Revoke the login at the registry and create a new one.",
                command: None,
                link: None,
            },
        }
    }
}

/// The last step of every rotation: put the new login into each secret. Lines of a shell command.
pub const REPLACE_SECRET: [&str; 3] = [
    "kubectl -n NAMESPACE create secret docker-registry NAME \\",
    "  --docker-server=HOST --docker-username=USER --docker-password=\"$PASSWORD\" \\",
    "  --dry-run=client -o yaml | kubectl apply -f -",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_registries_by_their_host() {
        for (host, kind) in [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", RegistryKind::Ecr),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", RegistryKind::Ecr),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", RegistryKind::Ecr),
            ("s3.amazonaws.com", RegistryKind::Other),
            ("ghcr.io", RegistryKind::Ghcr),
            ("GHCR.IO:443", RegistryKind::Ghcr),
            ("ghcr.io.evil.example", RegistryKind::Other),
            ("evilghcr.io", RegistryKind::Other),
            ("https://index.docker.io/v1/", RegistryKind::DockerHub),
            ("registry-1.docker.io", RegistryKind::DockerHub),
            ("registry.gitlab.com", RegistryKind::GitLab),
            ("gitlab.example.com:5050", RegistryKind::GitLab),
            ("quay.io", RegistryKind::Quay),
            ("europe-docker.pkg.dev", RegistryKind::ArtifactRegistry),
            ("eu.gcr.io", RegistryKind::ArtifactRegistry),
            ("team.azurecr.io", RegistryKind::Acr),
            ("harbor.example.com", RegistryKind::Harbor),
            ("demo.goharbor.io", RegistryKind::Harbor),
            ("image-registry.openshift-image-registry.svc:5000", RegistryKind::OpenShift),
            ("default-route-openshift-image-registry.apps.example.com", RegistryKind::OpenShift),
            ("", RegistryKind::Other),
            (".ghcr.io", RegistryKind::Other),
        ] {
            assert_eq!(RegistryKind::of(host, []), kind, "{host}");
        }
        assert_eq!(RegistryKind::of("registry.example.com", ["robot$ci"]), RegistryKind::Harbor);
        assert_eq!(RegistryKind::of("ghcr.io", ["robot$ci"]), RegistryKind::Ghcr);
    }

    #[test]
    fn every_kind_has_a_step() {
        for kind in RegistryKind::ALL {
            let rotation = kind.rotation();
            assert!(rotation.step.ends_with('.'), "{kind:?}");
            assert!(rotation.link.is_some() || kind == RegistryKind::Other);
            assert!(rotation.link.is_none_or(|link| link.starts_with("https://")));
        }
    }
}
