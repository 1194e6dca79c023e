export const handler = async () => import.meta.url.endsWith('typed/index.js');
