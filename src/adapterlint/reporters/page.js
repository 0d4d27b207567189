(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;
  const theme = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { theme.textContent = isDark() ? "Light colours" : "Dark colours"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  system.addEventListener("change", label);
  label();
  theme.hidden = false;

  const form = byId("filters");
  if (!form) return;
  const rows = [...document.querySelectorAll("#matrix tbody tr")];
  const findings = [...document.querySelectorAll("article")];
  const words = new Map([...rows, ...findings].map((item) => [item, item.textContent.toLowerCase()]));
  const apply = () => {
    const query = byId("query").value.trim().toLowerCase().split(/\s+/);
    const outcome = byId("outcome").value;
    const severity = byId("severity").value;
    const named = (item) => query.every((word) => words.get(item).includes(word));
    for (const row of rows) row.hidden = !named(row) || (outcome && !row.dataset.outcomes.split(" ").includes(outcome));
    for (const item of findings) item.hidden = !named(item) || (severity && item.dataset.severity !== severity);
    const count = (items) => items.filter((item) => !item.hidden).length;
    byId("count").textContent =
      `${count(rows)} of ${rows.length} rows, ${count(findings)} of ${findings.length} findings`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select")) { event.preventDefault(); byId("query").focus(); }
    if (event.key === "Escape" && event.target === byId("query")) { form.reset(); }
  });
  form.hidden = false;
  apply();
})();
