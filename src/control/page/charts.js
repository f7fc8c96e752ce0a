// Small live charts: the load of each core, and its flush interval.

const POINTS = 60;
const SVG = "http://www.w3.org/2000/svg";

/** One core's chart. */
class Chart {
  constructor(parent, shard) {
    this.loads = [];
    this.flushes = [];
    this.root = document.createElement("div");
    this.root.className = "shard";
    this.root.innerHTML = `
      <h3><span>core ${shard}</span></h3>
      <svg viewBox="0 0 ${POINTS - 1} 100" preserveAspectRatio="none" role="img"><title></title></svg>
      <dl>
        <div><dt class="load">load</dt><dd data-of="load"></dd></div>
        <div><dt class="flush">flush</dt><dd data-of="flush"></dd></div>
        <div><dt>players</dt><dd data-of="players"></dd></div>
        <div><dt>publishers</dt><dd data-of="publishers"></dd></div>
        <div><dt>skips</dt><dd data-of="skips"></dd></div>
      </dl>`;
    this.lines = ["load", "flush"].map((name) => {
      const line = document.createElementNS(SVG, "polyline");
      line.setAttribute("class", name);
      this.root.querySelector("svg").append(line);
      return line;
    });
    parent.append(this.root);
  }

  add({ load, flush_ms, players, publishers, skips }) {
    // 350 ms is the longest interval that follows the load.
    const rows = [[this.loads, load * 100], [this.flushes, Math.min(100, flush_ms / 3.5)]];
    rows.forEach(([values, value], index) => {
      values.push(value);
      if (values.length > POINTS) values.shift();
      const first = POINTS - values.length;
      const points = values.map((y, x) => `${first + x},${(98 - y * 0.96).toFixed(1)}`);
      this.lines[index].setAttribute("points", points.join(" "));
    });
    const show = (name, text) => { this.root.querySelector(`[data-of="${name}"]`).textContent = text; };
    const percent = `${Math.round(load * 100)} %`;
    show("load", percent);
    show("flush", flush_ms === 0 ? "at once" : `${flush_ms} ms`);
    show("players", players);
    show("publishers", publishers);
    show("skips", skips);
    this.root.querySelector("title").textContent = `load ${percent}, flush interval ${flush_ms} ms`;
  }
}

const charts = new Map();

/** Shows what `/api/v1/shards` says. */
export function showShards(shards) {
  document.getElementById("shards-section").hidden = shards.length === 0;
  for (const shard of shards) {
    if (!charts.has(shard.shard)) charts.set(shard.shard, new Chart(document.getElementById("shards"), shard.shard));
    charts.get(shard.shard).add(shard);
  }
}
