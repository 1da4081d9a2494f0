// Before anything is painted, hence no module: the appearance chosen earlier. page/appearance.js lets it be chosen.
try {
  document.documentElement.dataset.theme = localStorage.getItem("portrait.theme") ?? "system";
} catch {
  document.documentElement.dataset.theme = "system"; // a browser that keeps nothing
}
