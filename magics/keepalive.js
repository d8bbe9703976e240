function (config) {
  // Runs inside the output of %keepalive. While a run works, every config.beat
  // milliseconds it does what the host allows to show that somebody is here;
  // every config.watch it looks at the connection and says what it sees. It ends
  // when its card leaves the page. The kernel replaces the card now and then:
  // the next script goes on where this one was.
  const cards = (window.outlastKeepalive ??= { kernels: {} });
  const before = cards.kernels[config.kernel];
  before?.stop();
  const card = document.currentScript?.previousElementSibling;
  const line = card?.querySelector(".outlast-connection");
  const state = before?.state ?? { lostAt: null, text: "", calling: false, activity: "", activeAt: 0, idle: 0 };

  const say = (text) => {
    state.text = text;
    if (line && line.textContent !== text) line.textContent = text;
  };
  const time = (date) => date.toLocaleTimeString();

  // Colab's own page only. From the frame in which outputs live there is nothing
  // to find, and nothing happens.
  const press = () => {
    const outer = document.querySelector("colab-connect-button, colab-toolbar-button#connect");
    const button = outer?.shadowRoot?.querySelector("#connect") ?? outer;
    if (/connect/i.test(button?.textContent ?? "")) button.click(); // else it shows what is connected
  };

  // A sign of life that reaches the kernel. Where it has to wait behind a cell,
  // no second one is sent.
  const call = async () => {
    const kernel = globalThis.google?.colab?.kernel;
    if (!kernel || state.calling) return;
    state.calling = true;
    try {
      if (kernel.comms) (await kernel.comms.open("outlast_beat", {})).close();
      else await kernel.invokeFunction("outlast_beat", [], {});
    } finally {
      state.calling = false;
    }
  };

  // The page's own server, asked for this kernel; undefined where there is none.
  // A hub takes the question for activity, so while nothing works it says that it
  // is none.
  const ask = (active) => {
    const element = document.getElementById("jupyter-config-data");
    if (!element || !config.kernel) return undefined;
    const page = JSON.parse(element.textContent);
    const url = new URL(`${page.baseUrl ?? "/"}api/kernels/${config.kernel}`, location.href);
    if (!active) url.searchParams.set("no_track_activity", "1");
    return fetch(url, {
      headers: page.token ? { Authorization: `token ${page.token}` } : {},
      credentials: "same-origin",
      cache: "no-store",
      signal: AbortSignal.timeout(10000),
    });
  };

  const lost = () => {
    state.lostAt ??= new Date();
    say(`⚠ Connection lost at ${time(state.lostAt)}. Training goes on without this page, which reconnects by itself.`);
  };

  const found = () => {
    if (!state.lostAt) return;
    say(
      `✓ Connected again at ${time(new Date())}; it was lost at ${time(state.lostAt)}. ` +
        "Should the live view stand still, %attach shows it again, and %replay what a cell printed meanwhile.",
    );
    state.lostAt = null;
    state.activity = "";
  };

  // Whether the server has seen no sign of life for so long that some are missing.
  // Clocks may differ, so what counts is whether its last one stays the same.
  const silent = (kernel) => {
    if (state.activity !== kernel.last_activity) {
      state.activity = kernel.last_activity;
      state.activeAt = Date.now();
    }
    return config.working && Date.now() - state.activeAt > 3 * config.beat + 10000;
  };

  // Whether the kernel rests although this card says that a run works. Once may be
  // the moment in which the run ended: the kernel is about to say so.
  const resting = (kernel) => {
    const rests = config.working && kernel.execution_state === "idle";
    state.idle = rests ? state.idle + 1 : 0;
    return state.idle > 1;
  };
  const RESTING =
    "⚠ The kernel is idle, although this card says that a run works: it was restarted, and keep-alive with it, " +
    "or the run has ended. %keepalive status says which, and %keepalive switches it on.";

  const look = async (active) => {
    if (card && !card.isConnected) return stop();
    if (config.colab && !navigator.onLine) return lost();
    let answer, kernel;
    try {
      answer = await ask(active);
      if (answer?.ok) kernel = await answer.json();
    } catch {
      return lost();
    }
    if (answer?.status === 404) {
      say("⚠ This card is of a kernel that has ended. Training has not, if its machine is up: %status tells, %attach shows it.");
      return stop();
    }
    if (answer?.status === 401 || answer?.status === 403) {
      return say("⚠ You are signed out: reload this page. Training goes on meanwhile.");
    }
    if (answer && !answer.ok) return lost(); // a hub or a proxy, without the server behind it
    found();
    if (kernel && resting(kernel)) return say(RESTING);
    if (state.text === RESTING) say("");
    if (kernel && silent(kernel)) {
      say(`⚠ The kernel has given no sign of life since ${time(new Date(state.activeAt))}. If it was restarted, run %keepalive again.`);
    }
  };

  const watch = () => look(false);
  const beat = () => {
    if (!config.working) return;
    press();
    call().catch(() => {}); // no connection: watch says so
    return look(true);
  };

  const timers = [setInterval(beat, config.beat), setInterval(watch, config.watch)];
  window.addEventListener("online", watch);
  window.addEventListener("offline", watch);
  const stop = () => {
    timers.forEach(clearInterval);
    window.removeEventListener("online", watch);
    window.removeEventListener("offline", watch);
  };
  cards.kernels[config.kernel] = { state, stop };
  cards.watch = watch;
  if (!before && Math.abs(Date.now() - config.at) > 10000) {
    // The page shows a card that was saved, and which the kernel cannot replace any more.
    state.text = `This card is as it was at ${time(new Date(config.at))}. %keepalive status says how it is now, %attach shows what trains.`;
  }
  if (state.text) say(state.text);
  watch();
}
