// The part of runtime/web/page/words-en.js that is used here.

import type { Lack } from "./support.js";

declare const words: Record<Lack, string>;
export default words;
