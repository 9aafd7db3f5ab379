for (const root of document.querySelectorAll(".skfair-report:not([data-live])")) {
  root.dataset.live = "";
  const make = (tag, text, place) => {
    const element = document.createElement(tag);
    element.textContent = text;
    place.append(element);
    return element;
  };
  const save = (text, name, type) => {
    const link = make("a", "", root);
    link.href = URL.createObjectURL(new Blob([text], {type}));
    link.download = name;
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 9999);
  };
  const tables = [...root.querySelectorAll("table.m")];
  const words = cell => cell.textContent.trim().replace(/\s+/g, " ");
  const number = text => (text && isFinite(text) ? Number(text) : null);
  const labels = cell => [...cell.querySelectorAll("bdi")].map(part => part.textContent);

  // The numbers of a table: a column each for the value, the ends of the interval and the groups.
  const read = table => {
    const [first, ...heads] = table.tHead.rows[0].cells;
    const columns = labels(first);
    const width = columns.length;
    heads.forEach((head, i) => {
      if (head.matches("td")) return;
      columns.push(words(head));
      if (i) columns.push(words(head) + " low", words(head) + " high", words(head) + " groups");
    });
    const rows = [...table.tBodies].flatMap(body => [...body.rows]).map(row => {
      const [label, ...cells] = row.cells;
      const record = labels(label);
      while (record.length < width) record.push("");
      cells.forEach((cell, i) => {
        if (heads[i].matches("td")) return;
        const text = (cell.firstChild?.textContent ?? "").trim().replace("\u2212", "-");
        const [, value, low, high] = text.match(/^([^ ]*)(?: \[(.*), (.*)\])?/);
        record.push(number(value));
        if (i) record.push(number(low), number(high), cell.children.length ? words(cell.children[0]) : "");
      });
      return record;
    });
    const full = columns.map((_, i) => i < width || rows.some(row => row[i] !== "" && row[i] !== null));
    const keep = row => row.filter((_, i) => full[i]);
    return {table: words(table.caption.firstChild), unit: table.dataset.unit,
      columns: keep(columns), rows: rows.map(keep)};
  };
  // A spreadsheet would run a text that begins like a formula.
  const field = value => {
    let text = value === null ? "" : String(value);
    if (/^\s*[=+\-@]/.test(text) && !isFinite(text)) text = "'" + text;
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const csv = table => {
    const {columns, rows} = read(table);
    return "\ufeff" + [columns, ...rows].map(row => row.map(field).join(",")).join("\r\n") + "\r\n";
  };

  const bar = document.createElement("div");
  bar.className = "b";
  const label = make("label", "Show groups with ", bar);
  const box = make("input", "", label);
  box.type = "search";
  const told = make("span", "", bar);
  told.setAttribute("role", "status");
  const groups = () => tables.flatMap(table => [...table.tBodies[0].rows]);
  box.addEventListener("input", () => {
    const wanted = box.value.toLowerCase();
    for (const row of groups()) row.hidden = !words(row.cells[0]).toLowerCase().includes(wanted);
    const rows = [...tables[0].tBodies[0].rows];
    told.textContent = wanted && `${rows.filter(row => !row.hidden).length} of ${rows.length} rows in the first table`;
  });
  make("button", "Download JSON", bar).addEventListener("click", () =>
    save(JSON.stringify(tables.map(read), null, 1), "fairness-report.json", "application/json"));
  tables[0]?.closest(".s").before(bar);

  tables.forEach((table, n) => {
    const place = n ? document.createElement("div") : bar;
    place.className = "b";
    if (n) table.closest(".s").before(place);
    make("button", "Download table as CSV", place).addEventListener("click", () =>
      save(csv(table), `fairness-report-${n + 1}.csv`, "text/csv"));
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      if (head.matches("td")) return;
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = row => {
          const text = words(row.cells[i]).replace("\u2212", "-");
          return i ? parseFloat(text) : text;
        };
        const rows = [...table.tBodies[0].rows].map(row => [key(row), row]);
        rows.sort(([a], [b]) => {
          if (!i) return a.localeCompare(b, "en", {numeric: true}) * (down ? -1 : 1);
          if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);  // without a value: at the end
          return (a - b) * (down ? -1 : 1);
        });
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
    table.addEventListener("mouseover", event => {
      const cell = event.target.closest("tbody td");
      if (!cell?.querySelector("svg")) return;
      const heads = table.tHead.rows[0].cells;
      cell.title = [...cell.parentNode.cells].map((other, i) =>
        i ? other === cell ? "" : words(heads[i]) + ": " + words(other) : words(other))
        .filter(Boolean).join("\n");
    });
  });

  // Closed parts are printed, too.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...root.querySelectorAll("details:not([open])")];
    for (const part of closed) part.open = true;
  });
  addEventListener("afterprint", () => closed.forEach(part => { part.open = false; }));
}
