// The page: live streams, players, cores, commands to publish.

import { showShards } from "/page/charts.js";
import { WAYS, obstacle, play } from "/page/player.js";

const EVERY_MS = 2000;
const RTMP_PORT = 1935;
const at = (id) => document.getElementById(id);

async function ask(path) {
  const response = await fetch(path, { cache: "no-store", headers: { Accept: "application/problem+json" } });
  const answer = await response.json().catch(() => ({ message: response.statusText }));
  if (!response.ok) throw new Error(answer.message || `status ${response.status}`);
  return answer;
}

const rate = (kbps) => (kbps >= 10_000 ? `${(kbps / 1000).toFixed(1)} Mbit/s` : `${kbps} kbit/s`);

const label = (stream) => stream.url.replace(/^\//, "");

function describeVideo(video) {
  if (!video) return "none";
  const size = video.width ? ` ${video.width}×${video.height}` : "";
  return `${video.codec}${size} ${video.profile ?? ""} ${video.level ?? ""}`.trim();
}

function describeAudio(audio) {
  if (!audio) return "none";
  const hertz = audio.sample_rate ? ` ${audio.sample_rate / 1000} kHz` : "";
  return `${audio.codec}${hertz}`;
}

/** Streams of two vhosts may have one name; where they play differs. */
const keyOf = (stream) => `${stream.url} ${stream.flv} ${stream.hls} ${stream.dash}`;

/** A row per stream; rows stay, so that whoever is on a button stays there. */
function showStreams(streams) {
  const body = at("streams").tBodies[0];
  const rows = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  for (const stream of streams) {
    const row = rows.get(keyOf(stream)) ?? newRow(stream, body);
    rows.delete(keyOf(stream));
    const texts = [
      label(stream), describeVideo(stream.video), describeAudio(stream.audio),
      rate(stream.kbps.recv_30s), rate(stream.kbps.send_30s), String(stream.players),
    ];
    texts.forEach((text, index) => { if (row.cells[index].textContent !== text) row.cells[index].textContent = text; });
  }
  rows.forEach((row) => row.remove());
  at("streams").hidden = streams.length === 0;
  at("empty").hidden = streams.length > 0;
}

function newRow(stream, body) {
  const row = body.insertRow();
  row.dataset.id = keyOf(stream);
  for (const name of ["", "Video", "Audio", "In", "Out", "Players", ""]) {
    const cell = row.insertCell();
    if (name) cell.dataset.name = name;
    if (["In", "Out", "Players"].includes(name)) cell.className = "number";
  }
  const buttons = document.createElement("div");
  buttons.className = "buttons";
  const paths = { flv: stream.flv, ws: stream.flv, hls: stream.hls, dash: stream.dash };
  for (const [how, path] of Object.entries(paths).filter(([, path]) => path)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "play";
    button.textContent = WAYS[how].label;
    button.setAttribute("aria-label", `Play ${label(stream)} by ${WAYS[how].label}`);
    button.disabled = obstacle() !== "";
    button.addEventListener("click", () => play(path, how));
    buttons.append(button);
  }
  if (!buttons.hasChildNodes()) buttons.textContent = "http_remux, hls and dash are off for this vhost";
  row.cells[6].append(buttons);
  return row;
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = text === "";
}

async function refresh() {
  try {
    const { version, rtmp_port, total, streams, shards } = await ask("/page/streams.json");
    notice(obstacle());
    showStreams(streams);
    showShards(shards);
    at("version").textContent = version;
    showCommands(rtmp_port ?? RTMP_PORT);
    at("state").textContent = `${total} ${total === 1 ? "stream" : "streams"}`;
  } catch (error) {
    notice(`No list of streams: ${error.message}`);
    at("state").textContent = "";
  }
  setTimeout(refresh, EVERY_MS);
}

/** Commands with this host's name and the ports that the server has. */
function showCommands(port) {
  const server = `rtmp://${location.hostname}${port === RTMP_PORT ? "" : `:${port}`}/live`;
  at("ffmpeg").textContent = `ffmpeg -re -stream_loop -1 -i FILE -c copy -f flv ${server}/livestream`;
  at("obs-server").textContent = server;
  at("obs-key").textContent = "livestream";
  at("ffplay").textContent = `ffplay ${location.origin}/live/livestream.flv`;
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = at(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // Without HTTPS there is no clipboard but on localhost: mark the text instead.
      getSelection().selectAllChildren(at(button.dataset.copy));
      button.textContent = "Marked";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

at("open").addEventListener("submit", (event) => {
  event.preventDefault();
  const why = obstacle();
  if (why) return notice(why);
  const [path, query] = at("path").value.split("?");
  const how = at("how").value;
  play(`${path.replace(/\.(flv|m3u8|mpd)$/, "")}${WAYS[how].end}${query ? `?${query}` : ""}`, how);
});

showCommands(RTMP_PORT);
refresh();
