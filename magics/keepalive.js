// Runs inside the output of %keepalive. Every 60 s it does what the host allows
// to show that somebody is here; every 30 s it looks at the connection and says
// what it sees. It ends when its card leaves the page or a newer one takes over.
(() => {
  const BEAT_MS = 60_000, WATCH_MS = 30_000;
  window.outlastKeepalive?.stop();
  const script = document.currentScript;
  const card = script?.parentElement ?? document.body;
  const line = () => (card.isConnected ? card : document).querySelector(".outlast-connection");
  let wasOnline = true;

  const press = (root) => {
    // Colab's own page only; from a sandboxed output frame there is nothing to
    // find, and nothing happens.
    const button = root.querySelector("colab-connect-button") ?? root.querySelector("colab-toolbar-button#connect");
    (button?.shadowRoot?.querySelector("#connect") ?? button)?.click();
  };
  const beat = () => {
    try { press(document); } catch { /* another host */ }
  };
  const watch = () => {
    if (card !== document.body && !card.isConnected) return stop();
    const online = navigator.onLine;
    const place = line();
    if (place && !online) place.textContent = "Connection lost. Training goes on; this page reconnects by itself.";
    if (place && online && !wasOnline) {
      place.textContent = "Connected again. %attach shows the live view, %status the state.";
    }
    wasOnline = online;
  };
  const timers = [setInterval(beat, BEAT_MS), setInterval(watch, WATCH_MS)];
  const stop = () => timers.forEach(clearInterval);
  window.addEventListener("online", watch);
  window.addEventListener("offline", watch);
  window.outlastKeepalive = { stop };
})();
