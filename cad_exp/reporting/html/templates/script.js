"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  document.documentElement.classList.add("ready");

  // Tables: a button in every head that can be sorted.
  const valueOf = (row, column, kind) => {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent.trim().toLowerCase();
    const given = cell.hasAttribute("data-value") ? cell.dataset.value : cell.textContent.replace("−", "-");
    const number = parseFloat(given);
    return Number.isNaN(number) ? null : number;
  };
  const sortBy = (table, head, column) => {
    const down = head.getAttribute("aria-sort") === "ascending" || (head.dataset.sort === "number" && !head.hasAttribute("aria-sort"));
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [valueOf(row, column, head.dataset.sort), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = Array.from(table.tHead.rows).flatMap((row) => Array.from(row.cells)).filter((head) => head.dataset.sort);
    const last = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
    heads.forEach((head) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sortBy(table, head, last.indexOf(head)));
    });
  });

  // Marks what can be swiped sideways. In the next frame: a mark changes the height, which is not to be watched at once.
  const watch = new ResizeObserver(() => requestAnimationFrame(() => {
    document.querySelectorAll(".scroll").forEach((each) => each.classList.toggle("wide", each.scrollWidth > each.clientWidth + 1));
  }));
  document.querySelectorAll(".scroll").forEach((each) => watch.observe(each));

  // A field that filters the rows of a table.
  document.querySelectorAll("input[data-filter]").forEach((field) => {
    const rows = Array.from(byId(field.dataset.filter).tBodies[0].rows);
    const count = field.closest("form").querySelector("output");
    const show = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = `${shown} of ${rows.length}`;
    };
    field.addEventListener("input", show);
    show();
  });
  document.querySelectorAll("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));

  // The gallery.
  const strips = byId("gallery-strips");
  if (strips) {
    const every = Array.from(strips.children);
    const page = Number(strips.dataset.page);
    const prompt = byId("gallery-prompt"), order = byId("gallery-sort"), more = byId("gallery-more");
    let most = page;
    const change = (strip) => (strip.dataset.change === "" ? null : Number(strip.dataset.change));
    const compare = { order: () => 0, most: (a, b) => change(b) - change(a), least: (a, b) => change(a) - change(b) };
    const show = () => {
      const sorted = [...every].sort((a, b) => {
        if (order.value === "order") return 0;
        const unknown = (change(a) === null) - (change(b) === null);
        return unknown || compare[order.value](a, b);
      });
      strips.append(...sorted);
      const chosen = sorted.filter((strip) => prompt.value === "" || strip.dataset.prompt === prompt.value);
      every.forEach((strip) => { strip.hidden = true; });
      chosen.slice(0, most).forEach((strip) => { strip.hidden = false; });
      more.hidden = chosen.length <= most;
      byId("gallery-count").textContent = `${Math.min(most, chosen.length)} of ${chosen.length}`;
    };
    const anew = () => { most = page; show(); };
    prompt.addEventListener("change", anew);
    order.addEventListener("change", anew);
    more.addEventListener("click", () => { most += page; show(); });
    show();
    window.addEventListener("beforeprint", () => every.forEach((strip) => { strip.hidden = false; }));
    window.addEventListener("afterprint", show);
  }

  // The zoom from a layer to its components, and to one of them.
  const data = byId("zoom-data") && JSON.parse(byId("zoom-data").textContent);
  if (data) {
    const layer = byId("zoom-layer"), rank = byId("zoom-rank"), strip = byId("zoom-strip"), card = byId("zoom-card");
    const members = data.layers.map(() => []);
    data.layer.forEach((number, index) => members[number].push(index));
    members.forEach((own) => own.sort((a, b) => data.score[b] - data.score[a]));
    data.layers.forEach((name, number) => {
      const option = new Option(`${name} (${members[number].length})`, number);
      option.disabled = !members[number].length;
      layer.add(option);
    });
    const most = data.score.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
    const svg = (name, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
      return made;
    };
    const text = (name, content, className) => {
      const made = document.createElement(name);
      made.textContent = content;
      if (className) made.className = className;
      return made;
    };
    const said = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toPrecision(3);
    const full = (index) => `${data.layers[data.layer[index]]} · ${data.names[index]}`;
    const link = (index) => {
      const made = text("button", full(index), "link");
      made.type = "button";
      made.addEventListener("click", () => choose(index, true));
      return made;
    };
    const draw = (own) => {
      strip.replaceChildren();
      const width = Math.min(50, 1000 / own.length);
      own.forEach((index, place) => {
        const high = 56 * Math.sqrt(Math.abs(data.score[index]) / most);
        const sign = data.score[index] > 0 ? "makes" : "suppresses";
        const bar = svg("rect", { x: place * width, width: Math.max(0.6, Math.min(48, width - (own.length > 120 ? 0 : 1.5))), class: sign,
          y: data.score[index] > 0 ? 60 - high : 60, height: Math.max(1, high) });
        bar.append(svg("title", {}));
        bar.firstChild.textContent = `${data.names[index]}: ${said(data.score[index])}`;
        bar.addEventListener("click", () => choose(index));
        strip.append(bar);
      });
      strip.append(svg("line", { x1: 0, x2: 1000, y1: 60, y2: 60 }));
    };
    const show = () => {
      const own = members[layer.value], index = own[rank.value];
      strip.querySelectorAll("rect").forEach((bar, place) => bar.classList.toggle("on", place === Number(rank.value)));
      rank.setAttribute("aria-valuetext", `${data.names[index]}, score ${said(data.score[index])}`);
      const score = text("span", said(data.score[index]), `big ${data.score[index] > 0 ? "makes" : "suppresses"}`);
      const error = data.error ? ` ± ${data.error[index].toPrecision(2)} (standard error)` : "";
      const does = data.score[index] > 0 ? "makes the concept" : data.score[index] < 0 ? "suppresses the concept" : "does nothing";
      const line = text("p", "");
      line.append(score, text("span", `${error} · ${does} · rank ${data.rank[index].toLocaleString("en")} of ${data.of.toLocaleString("en")}`, "muted"));
      const parts = [text("h4", full(index)), line];
      if (data.factor) {
        const factor = data.factor[index];
        const change = factor === 1 ? "The edit leaves it as it is." : `The edit multiplies it by ${factor < 0 ? "−" : ""}${Math.abs(factor).toFixed(2)}.`;
        parts.push(text("p", change));
      }
      const pairs = data.pairs[index] || [];
      if (pairs.length) {
        parts.push(text("p", "Its neighbours by interaction: what switching off both does beyond the sum of both.", "note"));
        const list = document.createElement("ul");
        pairs.forEach(([other, value]) => {
          const item = document.createElement("li");
          item.append(link(other), text("span", ` ${said(value)}, ${value > 0 ? "overlap: both do the same" : "back up: each makes up for the other"}`, "muted"));
          list.append(item);
        });
        parts.push(list);
      }
      card.replaceChildren(...parts);
    };
    const enter = (number) => {
      layer.value = number;
      document.querySelectorAll(".layer").forEach((row) => row.classList.toggle("on", row.dataset.layer === String(number)));
      rank.max = members[number].length - 1;
      rank.value = 0;
      draw(members[number]);
    };
    const choose = (index, jump) => {
      if (Number(layer.value) !== data.layer[index] || !strip.childElementCount) enter(data.layer[index]);
      rank.value = members[data.layer[index]].indexOf(index);
      show();
      if (jump) { byId("zoom").scrollIntoView({ block: "nearest" }); rank.focus({ preventScroll: true }); }
    };
    layer.addEventListener("change", () => { enter(layer.value); show(); });
    rank.addEventListener("input", show);
    document.querySelectorAll(".layer").forEach((row) => row.addEventListener("click", () => {
      if (members[row.dataset.layer].length) { enter(row.dataset.layer); show(); byId("zoom").scrollIntoView({ block: "nearest" }); }
    }));
    document.querySelectorAll("[data-component]").forEach((cell) => {
      const index = Number(cell.dataset.component);
      if (index < 0) return;
      const button = text("button", "", "link");
      button.type = "button";
      button.append(...cell.childNodes);
      button.setAttribute("aria-label", `zoom to ${full(index)}`);
      cell.append(button);
      button.addEventListener("click", () => choose(index, true));
    });
    const best = data.score.reduce((top, value, index) => (Math.abs(value) > Math.abs(data.score[top]) ? index : top), 0);
    choose(best);
  }

  // Whatever is folded opens in print, but definitions and settings: they fill most pages and repeat themselves.
  let unfolded = [];
  window.addEventListener("beforeprint", () => {
    unfolded = Array.from(document.querySelectorAll("details:not([open], .settings)"));
    unfolded.forEach((each) => { each.open = true; });
  });
  window.addEventListener("afterprint", () => unfolded.forEach((each) => { each.open = false; }));
})();
