function (config) {
  // Runs inside the output of %keepalive. Every config.beat milliseconds it does
  // what the host allows to show that somebody is here; every config.watch it
  // looks at the connection and says what it sees. It ends when its card leaves
  // the page or a newer one takes over.
  window.outlastKeepalive?.stop();
  const script = document.currentScript;
  const card = script?.previousElementSibling ?? document.querySelector(".outlast-keepalive");
  const line = card?.querySelector(".outlast-connection");
  let lostAt = null;

  const say = (text) => {
    if (line) line.textContent = text;
  };

  // Colab's own page only. From the frame in which outputs live there is nothing
  // to find, and nothing happens.
  const press = () => {
    const button =
      document.querySelector("colab-connect-button") ?? document.querySelector("colab-toolbar-button#connect");
    (button?.shadowRoot?.querySelector("#connect") ?? button)?.click();
  };

  const beat = async () => {
    try {
      press();
      await globalThis.google?.colab?.kernel?.invokeFunction("outlast_beat", [], {});
    } catch {
      // another host, or no connection: watch says so
    }
  };

  // The page's own server, asked for this kernel; undefined where there is none.
  const server = () => {
    const element = document.getElementById("jupyter-config-data");
    if (!element || !config.kernel) return undefined;
    const page = JSON.parse(element.textContent);
    const url = new URL(`${page.baseUrl ?? "/"}api/kernels/${config.kernel}`, location.href);
    return fetch(url, {
      headers: page.token ? { Authorization: `token ${page.token}` } : {},
      credentials: "same-origin",
      cache: "no-store",
      signal: AbortSignal.timeout(10000),
    });
  };

  const time = (date) => date.toLocaleTimeString();

  const lost = () => {
    lostAt ??= new Date();
    say(`⚠ Connection lost at ${time(lostAt)}. Training goes on without this page, which reconnects by itself.`);
  };

  const found = () => {
    if (!lostAt) return;
    say(
      `✓ Connected again; it was lost at ${time(lostAt)}. ` +
        "%attach shows the live view again, %replay what a cell printed meanwhile.",
    );
    lostAt = null;
  };

  const watch = async () => {
    if (card && !card.isConnected) return stop();
    if (!navigator.onLine && location.hostname !== "localhost" && location.hostname !== "127.0.0.1") return lost();
    try {
      const answer = await server();
      if (answer?.status === 404) {
        say("⚠ The server has no such kernel any more: start it again. %resume goes on with the run.");
        return;
      }
      found();
    } catch {
      lost();
    }
  };

  const timers = [setInterval(beat, config.beat), setInterval(watch, config.watch)];
  window.addEventListener("online", watch);
  window.addEventListener("offline", watch);
  const stop = () => {
    timers.forEach(clearInterval);
    window.removeEventListener("online", watch);
    window.removeEventListener("offline", watch);
  };
  window.outlastKeepalive = { stop, watch };
  beat();
  watch();
}
