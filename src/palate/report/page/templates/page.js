// Charts, sorting, hover, filters. Texts of data and models are already on the page as text; nothing
// here turns a string into markup.
"use strict";
(() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const specs = JSON.parse($("#charts").textContent);
  const { View, parse, compile, expressionInterpreter } = globalThis.palateVega;

  // Hover and focus: one box for tables and charts.
  const tip = $("#tip");
  function tell(text, x, y) {
    tip.textContent = text;
    tip.hidden = !text;
    if (!text) return;
    const { offsetWidth: width, offsetHeight: height } = tip;
    tip.style.left = `${scrollX + Math.max(4, Math.min(x + 12, innerWidth - width - 12))}px`;
    tip.style.top = `${scrollY + (y + height + 24 > innerHeight ? y - height - 12 : y + 16)}px`;
  }
  function tellOf(target) {
    const box = target.getBoundingClientRect();
    tell(target.dataset.tip, box.left, box.bottom - 10);
    target.setAttribute("aria-describedby", "tip");
  }
  for (const [over, out] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    document.addEventListener(over, (event) => {
      const target = event.target.closest?.("[data-tip]");
      if (target) tellOf(target);
    });
    document.addEventListener(out, (event) => {
      const target = event.target.closest?.("[data-tip]");
      if (target) { tell(""); target.removeAttribute("aria-describedby"); }
    });
  }

  // Charts: drawn when they come near the window, again when its width changes, all before print.
  const font = "Palate Sans, system-ui, sans-serif";
  const label = { labelFont: font, titleFont: font, labelFontSize: 12.5, titleFontSize: 12.5,
    labelColor: "var(--soft)", titleColor: "var(--soft)", titleFontWeight: 400 };
  const config = {
    background: null, font, aria: false, view: { stroke: null },
    axis: { ...label, grid: true, gridColor: "var(--rule)", domain: false, ticks: false, labelPadding: 5,
      titlePadding: 7, labelLimit: 130, tickCount: 5 },
    axisY: { titleAnchor: "end", titleAngle: 0, titleAlign: "left", titleX: 0, titleY: -9, titleBaseline: "bottom" },
    axisYBand: { grid: false }, axisYPoint: { grid: false },
    header: { labelFont: font, labelFontSize: 13.5, labelFontWeight: 600, labelColor: "var(--ink)",
      labelAnchor: "start", labelPadding: 8, labelLimit: 330, labelOrient: "top", title: null },
    legend: { ...label, labelColor: "var(--ink)", labelFontSize: 13, symbolSize: 70, symbolOpacity: 1, labelLimit: 260, orient: "top",
      columnPadding: 16, offset: 8 },
  };
  const NARROW = 480; // Pixels: a legend takes two columns, or one where it begins after long labels.
  function fitted(width, left) {
    if (width >= NARROW) return config;
    const columns = left > 100 ? 1 : 2;
    const labelLimit = (width - left) / columns - 44;
    return { ...config, header: { ...config.header, labelLimit: width - left - 20 },
      legend: { ...config.legend, columns, labelLimit } };
  }
  const drawings = new Map();
  const draw = (plot) => drawings.set(plot, drawn(plot)).get(plot);
  function drawn(plot) {
    const { spec, panel, columns, left, between, below } = specs[plot.dataset.chart];
    const made = structuredClone(spec);
    const width = plot.clientWidth;
    plot.dataset.width = width;
    if (made.facet) {
      const fit = Math.max(1, Math.min(columns, Math.floor((width - left + between) / (panel + between))));
      made.columns = fit;
      made.spacing = { row: below, column: between };
      made.bounds = "flush"; // Panels stand on a grid, whatever their labels.
      made.spec.width = Math.floor((width - left - (fit - 1) * between) / fit) - 12;
    } else made.width = width - left - 16;
    const view = new View(parse(compile(made, { config: fitted(width, left) }).spec, null, { ast: true }), {
      expr: expressionInterpreter, renderer: "svg", container: plot, hover: false,
    });
    view.tooltip((_, event, item, value) => tell(value ? String(value) : "", event.clientX, event.clientY));
    return view.runAsync().then(() => {
      $("svg", plot).setAttribute("aria-hidden", "true"); // Its box says what it shows, its table the numbers.
      plot.dataset.drawn = "yes";
    });
  }
  const redraw = (plot) => { if (Number(plot.dataset.width) !== plot.clientWidth) { plot.replaceChildren(); draw(plot); } };
  const plots = all(".plot");
  const isBefore = (one, other) => one.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING;
  const near = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting && !target.dataset.width) draw(target);
  }, { rootMargin: "400px" });
  // Labels are measured with the fonts that draw them.
  const fonts = Promise.allSettled(
    ['400 12px "Palate Sans"', '600 12px "Palate Sans"'].map((face) => document.fonts.load(face)));
  fonts.then(() => plots.forEach((plot) => near.observe(plot)));
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => plots.filter((plot) => plot.dataset.width).forEach(redraw), 150);
  });
  addEventListener("beforeprint", () => plots.filter((plot) => !plot.dataset.width).forEach(draw));

  // Sorting: rows within each body; figures begin with the highest.
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, place) => $("button", head).addEventListener("click", () => {
      const up = head.ariaSort ? head.ariaSort === "descending" : !head.classList.contains("n");
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.ariaSort = up ? "ascending" : "descending";
      table.classList.add("sorted");
      for (const body of table.tBodies) {
        const rows = [...body.rows];
        const fixed = rows.filter((row) => row.classList.contains("heading"));
        const value = (row) => row.cells[place].dataset.v;
        const order = (a, b) => compare(value(a), value(b), up);
        body.append(...fixed, ...rows.filter((row) => !fixed.includes(row)).sort(order));
      }
    }));
  }
  function compare(a, b, up) {
    const [x, y] = [parseFloat(a), parseFloat(b)];
    const blank = (text) => text === "" || text === "–";
    if (blank(a) || blank(b)) return blank(a) - blank(b); // What is missing stands last either way.
    const less = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
    return up ? less : -less;
  }

  // Failures: filters and search over items that are all on the page.
  const form = $("#filters");
  if (form) {
    const items = all(".item");
    const texts = new WeakMap();
    const text = (item) => texts.get(item) ?? (texts.set(item, item.textContent.toLowerCase()), texts.get(item));
    const find = $("#find");
    const PAGE = 25;
    let most = PAGE;
    const more = $("#more");
    const show = () => {
      const wanted = all("select", form).filter((select) => select.value);
      const said = find.value.toLowerCase().trim();
      let count = 0;
      for (const item of items) {
        const fits = wanted.every((select) => item.dataset[select.name].split(" ").includes(select.value));
        const found = fits && (said === "" || text(item).includes(said));
        count += found;
        item.hidden = !found || count > most;
      }
      $("#count").textContent = `${count} of ${items.length}`;
      more.hidden = count <= most;
      more.textContent = `Show ${Math.min(PAGE, count - most)} more`;
      $("#none").hidden = count > 0;
    };
    const filter = (query) => {
      form.reset();
      for (const [name, value] of new URLSearchParams(query)) {
        const select = form.elements.namedItem(name);
        if (select) select.value = value;
      }
      anew();
    };
    const anew = () => { most = PAGE; show(); };
    form.addEventListener("input", anew);
    more.addEventListener("click", () => { most += PAGE; show(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(anew));
    document.addEventListener("click", (event) => {
      const from = event.target.closest("[data-filter]");
      if (from) filter(from.dataset.filter);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
        event.preventDefault();
        find.focus();
      }
    });
    show();
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tell(""); });

  // Links open the folded table they lead into. Charts grow when they are drawn: those above the
  // target are drawn before the page stops there.
  async function arrive(hash, how) {
    const target = hash.length > 1 && document.getElementById(hash.slice(1));
    if (!target) return;
    const fold = target.closest("details");
    if (fold) fold.open = true;
    target.scrollIntoView(how);
    await fonts;
    await Promise.all(plots.filter((plot) => isBefore(plot, target)).map((plot) => drawings.get(plot) ?? draw(plot)));
    target.scrollIntoView(how);
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link) setTimeout(() => arrive(link.hash));
  });
  arrive(location.hash, { behavior: "instant" });

  // Light or dark: the reader's system decides until they do.
  const button = $("#theme");
  const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.hidden = false;
  button.addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
})();
