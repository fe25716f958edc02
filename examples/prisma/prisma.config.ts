export default {
  schema: '.',
  datasource: { url: process.env.DATABASE_URL },
  experimental: { externalTables: true },
  // Prisma Migrate leaves these alone: `migrate` of latchkey/sql creates them.
  tables: {
    external: [
      'public.latchkey_keys',
      'public.latchkey_keys_quotas',
      'public.latchkey_keys_agreements',
      'public.latchkey_keys_usage',
      'public.latchkey_keys_usage_writers',
      'public.latchkey_keys_migrations',
    ],
  },
}
