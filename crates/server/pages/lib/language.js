// The language, before anything else: what the pages say in it is fetched together with the rest, and not what they say in
// the other. It is in the document.

/** @returns {string | null} */
function keptLanguage() {
  try {
    return localStorage.getItem('boxoffice.lang');
  } catch {
    return null;
  }
}
const wanted = [new URLSearchParams(location.search).get('lang'), keptLanguage(), ...navigator.languages.map((it) => it.slice(0, 2))];
document.documentElement.lang = wanted.find((it) => it === 'ko' || it === 'en') ?? 'en';
const link = document.createElement('link');
link.rel = 'modulepreload';
link.href = document.documentElement.lang === 'ko' ? '/assets/i18n/ko.js' : '/assets/i18n/en.js';
document.head.append(link);
