//! The API's description, from the types that it answers with.

use super::{api::model, reply::Failure};
use std::sync::OnceLock;
use utoipa::OpenApi;

/// What lies under `/api/v1/`, as `/api/v1/` lists it.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("versions", "the version of this server"),
    ("summaries", "the summary of process and machine"),
    ("rusages", "what this process has used"),
    ("self_proc_stats", "the stats of this process"),
    ("system_proc_stats", "the stats of the machine's CPUs"),
    ("meminfos", "the memory of the machine"),
    ("authors", "the licence, and who has made this"),
    ("features", "what this server can"),
    ("requests", "what this request is"),
    ("vhosts", "virtual hosts, or one by its id"),
    ("streams", "streams, or one by its id"),
    ("clients", "clients, or one by its id; DELETE disconnects it"),
    ("clusters", "where a stream is published, if it is here"),
    ("shards", "load and flush interval of every core (ours)"),
    ("programs", "processes of exec, transcode and ingest (ours)"),
    ("recordings", "recordings, or those of a stream by its id; POST begins one, DELETE ends it (ours)"),
    ("raw", "rpc=raw tells what this may, rpc=reload reloads the configuration"),
    ("openapi.json", "this description (ours)"),
];

macro_rules! paths {
    ($($name:ident ($($method:ident)*) $path:literal $about:literal $answer:ident;)*) => {
        $(
            #[utoipa::path(method($($method),*), path = $path, description = $about, responses(
                (status = 200, description = "As asked", body = model::$answer),
                (status = 401, description = "Who asks has not proved who it is", body = Failure),
                (status = 403, description = "Not for who asks", body = Failure),
                (status = 503, description = "A shard does not answer", body = Failure, content_type = "application/problem+json"),
            ))]
            #[expect(dead_code, reason = "describes a path")]
            fn $name() {}
        )*
    };
}

paths! {
    root (get post put) "/api/v1/" "What there is" AllUrls;
    versions (get post put) "/api/v1/versions" "Version" Versions;
    summaries (get post put) "/api/v1/summaries" "Process and machine" Figures;
    rusages (get post put) "/api/v1/rusages" "What this process has used" Figures;
    self_proc_stats (get post put) "/api/v1/self_proc_stats" "This process" Figures;
    system_proc_stats (get post put) "/api/v1/system_proc_stats" "The machine's CPUs" Figures;
    meminfos (get post put) "/api/v1/meminfos" "The machine's memory, in KiB" Figures;
    authors (get post put) "/api/v1/authors" "Licence and authors" Figures;
    features (get post put) "/api/v1/features" "What this server can" Figures;
    requests (get post put) "/api/v1/requests" "This request" Figures;
    tests_requests (get post put) "/api/v1/tests/requests" "This request" Figures;
    clusters (get post put) "/api/v1/clusters" "Where the stream that the query names (vhost, app, stream) is published, if it is here" Figures;
    vhosts (get) "/api/v1/vhosts" "Virtual hosts" Vhosts;
    shards (get) "/api/v1/shards" "Cores" Shards;
    programs (get) "/api/v1/programs" "Processes of exec, transcode and ingest" Programs;
}

macro_rules! lists {
    ($($name:ident $path:literal $about:literal $answer:ident;)*) => {
        $(
            #[utoipa::path(get, path = $path, description = $about, params(
                ("start" = Option<u32>, Query, description = "How many to leave out"),
                ("count" = Option<u32>, Query, description = "How many to list, 10 unless given", minimum = 1),
            ), responses(
                (status = 200, description = "As asked", body = model::$answer),
                (status = 400, description = "start or count is no such number", body = Failure, content_type = "application/problem+json"),
                (status = 401, description = "Who asks has not proved who it is", body = Failure),
                (status = 403, description = "Not for who asks", body = Failure),
                (status = 503, description = "A shard does not answer", body = Failure, content_type = "application/problem+json"),
            ))]
            #[expect(dead_code, reason = "describes a path")]
            fn $name() {}
        )*
    };
}

lists! {
    streams "/api/v1/streams" "Streams" Streams;
    clients "/api/v1/clients" "Clients that publish or play" Clients;
    recordings "/api/v1/recordings" "Recordings of now and of late, the newest first" Recordings;
}

macro_rules! ones {
    ($($method:ident $name:ident $path:literal $about:literal $answer:ident;)*) => {
        $(
            #[utoipa::path($method, path = $path, description = $about, params(
                ("id" = String, Path, description = "As the list has it", pattern = "^[0-9a-z]+-[0-9a-f]+$"),
            ), responses(
                (status = 200, description = "As asked", body = model::$answer),
                (status = 401, description = "Who asks has not proved who it is", body = Failure),
                (status = 403, description = "Not for who asks", body = Failure),
                (status = 400, description = "No path of UTF-8", body = String, content_type = "text/plain"),
                (status = 404, description = "There is none", body = Failure, content_type = "application/problem+json"),
                (status = 503, description = "A shard does not answer", body = Failure, content_type = "application/problem+json"),
            ))]
            #[expect(dead_code, reason = "describes a path")]
            fn $name() {}
        )*
    };
}

ones! {
    get vhost "/api/v1/vhosts/{id}" "One virtual host" OneVhost;
    get stream "/api/v1/streams/{id}" "One stream" OneStream;
    get client "/api/v1/clients/{id}" "One client" OneClient;
    delete kick "/api/v1/clients/{id}" "Disconnects a client" Done;
    get recordings_of "/api/v1/recordings/{id}" "The recordings of a stream, by its id" Recordings;
    post record "/api/v1/recordings/{id}" "Has a stream recorded, by its id" Done;
    delete stop_recording "/api/v1/recordings/{id}" "Ends a stream's recording" Done;
}

#[utoipa::path(method(get, post, put), path = "/api/v1/raw", description = "What the raw API may, or a reload", params(
    ("rpc" = inline(Rpc), Query, description = "What to do"),
), responses(
    (status = 200, description = "Done", body = model::Raw),
    (status = 400, description = "rpc is neither", body = Failure, content_type = "application/problem+json"),
    (status = 401, description = "Who asks has not proved who it is", body = Failure),
    (status = 403, description = "Switched off, or not for who asks",
        content((Failure = "application/json"), (Failure = "application/problem+json"))),
    (status = 422, description = "The configuration has faults", body = Failure, content_type = "application/problem+json"),
    (status = 503, description = "It takes long", body = Failure, content_type = "application/problem+json"),
))]
#[expect(dead_code, reason = "describes a path")]
fn raw() {}

/// What the raw API does.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes a parameter")]
enum Rpc {
    Raw,
    Reload,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "corecast", description = "SRS's HTTP API, and figures of ours. Errors are told as SRS tells them, by \
        `code` with status 200; the statuses here are for requests with `Accept: application/problem+json`."),
    paths(
        root, versions, summaries, rusages, self_proc_stats, system_proc_stats, meminfos, authors, features, requests,
        tests_requests, clusters, vhosts, shards, programs, streams, clients, vhost, stream, client, kick, recordings, recordings_of,
        record, stop_recording,
        raw
    ),
    security((), ("basic" = []), ("token" = [])),
    modifiers(&Schemes)
)]
struct Document;

/// How one proves who one is.
struct Schemes;

impl utoipa::Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let components = document.components.get_or_insert_default();
        for (name, scheme) in [("basic", HttpAuthScheme::Basic), ("token", HttpAuthScheme::Bearer)] {
            components.add_security_scheme(name, SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build()));
        }
    }
}

/// OpenAPI 3.1, as JSON.
pub(super) fn document() -> String {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| Document::openapi().to_json().unwrap_or_default()).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name that the API lists is described.
    #[test]
    fn all_paths_are_described() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for (name, _) in NAMES.iter().filter(|(name, _)| *name != "openapi.json") {
            assert!(paths.contains_key(&format!("/api/v1/{name}")), "{name}");
        }
        assert!(document["components"]["schemas"]["Stream"]["properties"]["tcUrl"].is_object());
    }
}
